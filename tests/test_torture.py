"""A short version of `python -m benchmarks.torture`: two kills, then the same files as without."""

from benchmarks.torture import left_on_disk, torture


def test_a_run_that_was_killed_twice_ends_like_one_that_never_was(tmp_path):
    assert torture(tmp_path, kills=2, seed=3).total() == 2
    kept = left_on_disk(tmp_path / "whole")
    kinds = ("out/runs/cnn/state/checkpoint.safetensors", "out/results/vit/predictions.csv", "out/results/cnn/cm.png")
    assert all(name in kept for name in kinds)  # the comparison saw what matters,
    assert any("tfevents" in name for name in kept) and any("features-" in name for name in kept)
    (tmp_path / "whole" / "out" / "results" / "cnn" / "cm.png").write_bytes(b"?")
    assert left_on_disk(tmp_path / "whole") != kept  # and would have noticed
