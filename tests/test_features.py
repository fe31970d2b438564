"""Features are computed once; nothing but the very same images, weights and number format finds them again."""

import pytest
import torch

from hw1_utils import features as features_module
from hw1_utils.config import make_config
from hw1_utils.errors import Hw1Error
from hw1_utils.experiment import load
from hw1_utils.features import compute, standardization
from hw1_utils.io import progress
from hw1_utils.io.files import read_checked, write_checked
from hw1_utils.models import load_encoder

COUNT = 12
IMAGES = torch.randint(0, 256, (COUNT, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def make_encoder(seed: int = 0, dtype: torch.dtype = torch.float32):
    """timm's 0.3 M-parameter ViT with random weights; `passes` collects the batch sizes it was run on."""
    encoder = load_encoder(make_config("smoke", encoder="test_vit", seed=seed), torch.device("cpu"), dtype)
    passes = []
    encoder.register_forward_pre_hook(lambda module, args: passes.append(len(args[0])))
    return encoder, passes


def run(encoder, images, cache, batch_size=4):
    return compute(encoder, images, batch_size, cache, say=lambda line: None)


@pytest.fixture
def chunks_of_five(monkeypatch):
    monkeypatch.setattr(features_module, "CHUNK", 5)  # 12 images: 5 + 5 + 2


def test_features_are_the_encoders_outputs_in_order(tmp_path):
    encoder, passes = make_encoder()
    features = run(encoder, IMAGES, tmp_path, batch_size=5)
    assert passes == [5, 5, 2] and features.from_cache == 0
    assert features.rows.values.shape == (COUNT, encoder.columns) and features.rows.values.dtype == torch.float32
    torch.testing.assert_close(
        features.rows.values, torch.cat([encoder(image[None]) for image in IMAGES]), rtol=0, atol=1e-4
    )


def test_features_do_not_depend_on_the_number_of_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(features_module, "PASS", 2)
    encoder, passes = make_encoder()
    alone = run(encoder, IMAGES, tmp_path / "alone").rows.values
    sizes, threads = passes[:], []
    encoder.register_forward_pre_hook(lambda module, args: threads.append(torch.get_num_threads()))
    before, _ = torch.get_num_threads(), passes.clear()
    try:
        torch.set_num_threads(3)
        together = run(encoder, IMAGES, tmp_path / "together", batch_size=6).rows.values
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert passes == sizes == [2] * 6 and threads == [1] * 6
    assert torch.equal(together, alone)


def test_the_second_time_they_come_from_disk_with_their_cost(tmp_path):
    encoder, passes = make_encoder()
    first = run(encoder, IMAGES, tmp_path)
    passes.clear()
    second = run(make_encoder()[0], IMAGES, tmp_path)
    third = run(encoder, IMAGES, tmp_path, batch_size=3)
    assert passes == [] and second.from_cache == third.from_cache == COUNT
    assert torch.equal(first.rows.values, second.rows.values) and torch.equal(first.rows.values, third.rows.values)
    assert first.seconds == second.seconds == third.seconds > 0


def test_seconds_of_another_machine_are_not_this_ones(tmp_path, chunks_of_five, monkeypatch):
    """From a backup, say, or with other threads: some images are timed again and stand for all of those."""
    monkeypatch.setattr(features_module, "TIMED", 4)
    encoder, passes = make_encoder()
    options = {"batch_size": 4, "cache": tmp_path, "say": lambda line: None}
    compute(encoder, IMAGES[:5], machine="fast", **options)
    compute(encoder, IMAGES, machine="slow", **options)  # the first chunk is the fast machine's
    passes.clear()
    elsewhere = compute(encoder, IMAGES, machine="third", **options)
    assert passes == [4, 4] and elsewhere.timed == 4 and elsewhere.from_cache == COUNT  # the first for warming up
    passes.clear()
    here = compute(encoder, IMAGES, machine="slow", **options)
    notes = [read_checked(path)[1] for path in tmp_path.iterdir()]
    seconds = [float(note["seconds"]) for note in notes if note["machine"] == "slow"]
    assert passes == [] and here.timed == 7 and here.seconds == pytest.approx(sum(seconds) * COUNT / 7)


def one_pixel(images):
    images = images.clone()
    images[7, 2, 31, 31] ^= 1
    return images


@pytest.mark.parametrize(
    "change", [one_pixel, lambda images: images.flip(0), lambda images: images[:-1]], ids=["pixel", "order", "fewer"]
)
def test_other_images_are_not_these(tmp_path, change):
    encoder, _ = make_encoder()
    run(encoder, IMAGES, tmp_path)
    assert run(encoder, change(IMAGES), tmp_path).from_cache == 0


@pytest.mark.parametrize("other", [{"seed": 1}, {"dtype": torch.bfloat16}], ids=["weights", "dtype"])
def test_another_encoder_is_not_this_one(tmp_path, other):
    first = run(make_encoder()[0], IMAGES, tmp_path)
    second = run(make_encoder(**other)[0], IMAGES, tmp_path)
    assert second.from_cache == 0 and not torch.equal(first.rows.values, second.rows.values)


@pytest.mark.parametrize("attribute", ["mean", "std", "interpolation", "input_size"])
def test_other_preprocessing_is_not_this_one(attribute):
    encoder, _ = make_encoder()
    key = encoder.key()
    other = {"mean": torch.zeros(3), "std": torch.ones(3), "interpolation": "bilinear", "input_size": (96, 96)}
    setattr(encoder, attribute, other[attribute])
    assert encoder.key() != key


def test_chunks_change_nothing(tmp_path, chunks_of_five, monkeypatch):
    encoder, passes = make_encoder()
    in_chunks = run(encoder, IMAGES, tmp_path)
    assert passes == [4, 1, 4, 1, 2]
    monkeypatch.undo()
    whole = run(encoder, IMAGES, tmp_path)
    assert whole.from_cache == 0
    torch.testing.assert_close(in_chunks.rows.values, whole.rows.values, rtol=0, atol=1e-4)


def test_a_damaged_chunk_is_computed_again(tmp_path, chunks_of_five, capsys):
    encoder, passes = make_encoder()
    first = run(encoder, IMAGES, tmp_path)
    smallest = min(tmp_path.iterdir(), key=lambda path: path.stat().st_size)  # the last two images
    data = bytearray(smallest.read_bytes())
    data[-1] ^= 1
    smallest.write_bytes(data)
    passes.clear()
    second = run(encoder, IMAGES, tmp_path)
    assert passes == [2] and second.from_cache == 10 and torch.equal(first.rows.values, second.rows.values)
    assert f"{smallest.name} is damaged" in capsys.readouterr().out
    assert run(encoder, IMAGES, tmp_path).from_cache == COUNT


def test_an_interruption_keeps_the_finished_chunks(tmp_path, chunks_of_five):
    encoder, passes = make_encoder()

    def interrupt(module, args):
        if len(passes) == 4:  # inside the second chunk's last batch
            raise KeyboardInterrupt

    hook = encoder.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(encoder, IMAGES, tmp_path)
    hook.remove()
    passes.clear()
    features = run(encoder, IMAGES, tmp_path)
    assert features.from_cache == 5 and passes == [4, 1, 2]
    torch.testing.assert_close(features.rows.values, encoder(IMAGES), rtol=0, atol=1e-4)


def test_a_cache_that_cannot_be_written_costs_a_warning(tmp_path, capsys):
    (tmp_path / "cache").write_text("a file where the folder should be")
    encoder, _ = make_encoder()
    features = run(encoder, IMAGES, tmp_path / "cache")
    assert features.rows.values.shape == (COUNT, encoder.columns) and features.from_cache == 0
    assert "Not cached, the run goes on" in capsys.readouterr().out


def test_a_gpu_out_of_memory_gets_smaller_batches_and_that_is_said(tmp_path, chunks_of_five):
    encoder, passes = make_encoder()
    lines = []

    def run_out(module, args):
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    encoder.register_forward_pre_hook(run_out)
    features = compute(encoder, IMAGES, 5, tmp_path, say=lines.append)
    assert passes == [5, 2, 2, 1, 2, 2, 1, 2]  # once too many, then never again
    assert lines[0] == "  the GPU's memory is full: 2 images at a time from here on"
    torch.testing.assert_close(features.rows.values, make_encoder()[0](IMAGES), rtol=0, atol=1e-4)


def test_a_gpu_that_holds_not_even_one_image_is_one_sentence(tmp_path):
    encoder, _ = make_encoder()

    def run_out(module, args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    encoder.register_forward_pre_hook(run_out)
    with pytest.raises(Hw1Error, match="^The GPU's memory is too small for test_vit: close what else uses it, or take"):
        run(encoder, IMAGES, tmp_path)


def overflowing(encoder):
    """As large activations in fp16 do."""
    encoder.backbone.norm.weight.fill_(1e30 if encoder.dtype == torch.float32 else 6e4)
    return encoder


def test_features_that_overflow_are_said_as_such_and_never_kept(tmp_path):
    encoder = overflowing(make_encoder(dtype=torch.float16)[0])
    with pytest.raises(Hw1Error) as caught:
        run(encoder, IMAGES, tmp_path)
    assert str(caught.value) == (
        f"{encoder.label} gives features that are not finite numbers: its activations are too large for fp16, so set "
        "precision='fp32' (or 'bf16')."
    )
    assert list(tmp_path.iterdir()) == []


def test_features_of_broken_weights_are_said_as_such(tmp_path):
    encoder, _ = make_encoder()
    encoder.backbone.norm.bias[0] = float("nan")
    with pytest.raises(Hw1Error, match=r", in float32: its weights \(random weights\) are broken\.$"):
        run(encoder, IMAGES, tmp_path)


def test_a_cached_chunk_that_is_not_finite_is_computed_again(tmp_path, capsys):
    encoder, passes = make_encoder()
    first = run(encoder, IMAGES, tmp_path)
    (chunk,) = tmp_path.iterdir()
    infinite = {"features": first.rows.values.clone().fill_(float("inf"))}  # as earlier versions wrote
    write_checked(chunk, infinite, {"seconds": "1"})
    passes.clear()
    again = run(encoder, IMAGES, tmp_path)
    assert torch.equal(again.rows.values, first.rows.values) and passes and "is damaged" in capsys.readouterr().out


def test_progress_says_which_split_how_far_and_whether_from_cache(tmp_path, chunks_of_five, monkeypatch):
    monkeypatch.setattr(progress, "LOG_S", 0)
    encoder, _ = make_encoder()
    lines = []
    compute(encoder, IMAGES[:10], 4, tmp_path, name="val", say=lines.append)
    compute(encoder, IMAGES, 4, tmp_path, name="val", say=lines.append)
    compute(encoder, IMAGES, 4, tmp_path, name="val", say=lines.append)
    assert [line.split(",")[0].strip() for line in lines] == [
        *["features of val: 5 of 10 images", "features of val: 10 images"],
        *["features of val: 5 of 12 images", "features of val: 10 of 12 images", "features of val: 12 images"] * 2,
    ]
    assert ["from cache" in line for line in lines] == [False, False, True, True, True, True, True, True]
    assert lines[4].endswith(" images/s, 10 of them from cache") and lines[7].endswith(" 12 images, from cache")


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_no_feature_is_enlarged_more_than_most_are(scale):
    """Not one that is silent in training, or constant but for rounding, or nearly silent."""
    features = torch.randn(20, 6) * scale
    features[:, 1:4] = torch.tensor([0.0, 0.1, 1e-4]) * scale
    features[0, 3] = 1e-3 * scale
    mean, deviation = standardization(features)
    torch.testing.assert_close(mean, features.mean(0))
    ordinary = features.std(0, correction=0)[[0, 4, 5]]
    assert (deviation[1:4] == deviation.min()).all() and deviation.min() >= 0.9 * ordinary.min()
    assert standardization(torch.ones(5, 2))[1].tolist() == [1.0, 1.0]


def test_what_ends_an_extraction_is_said(make_smoke_config, monkeypatch, capsys):
    data = load(make_smoke_config())
    encoder = load_encoder(data.context.config, data.context.device, torch.float32)
    for error, expected in ((torch.OutOfMemoryError("CUDA"), Hw1Error), (KeyboardInterrupt(), KeyboardInterrupt)):

        def fail(*args, error=error, **options):
            raise error

        monkeypatch.setattr(features_module, "compute", fail)
        with pytest.raises(expected) as found:
            features_module.extract(encoder, data)
        said = str(found.value) + capsys.readouterr().out
        assert "lower memory_mb" in said or "it continues with what is not finished" in said
