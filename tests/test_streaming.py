"""Images and features that do not fit in memory are streamed from files, and the numbers stay the same."""

import pandas as pd
import pytest
import torch
from conftest import make_run, numbers, same, weights

from hw1_utils.experiment import evaluate_on_test, load, load_test, train
from hw1_utils.features import extract_split
from hw1_utils.io.toy import make_toy_folder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", ["cnn", "vit_blocks"])
def test_a_streamed_training_gives_the_same_numbers(make_smoke_config, tmp_path, name):
    results = []
    for memory_mb in (None, 0):
        data = load(make_smoke_config(memory_mb=memory_mb, output_dir=str(tmp_path / f"{memory_mb}")))
        trained, test = train(make_run(data, name)), load_test(data)
        results.append(evaluate_on_test(trained, test))
        parts = (data.train.images, test.images)
        parts += tuple(one.inputs for one in (trained.run.train, trained.run.val, trained.run.from_pixels.samples))
        assert {part.streamed for part in parts} == {memory_mb == 0}
    one, other = results
    pd.testing.assert_frame_equal(numbers(one.trained.history), numbers(other.trained.history), check_exact=True)
    assert same(weights(one.trained), weights(other.trained))
    assert torch.equal(one.test.probabilities, other.test.probabilities)


def test_the_encoder_gets_photographs_at_its_own_size_and_the_cnn_at_its(make_smoke_config, tmp_path):
    sides = {}
    for side in (100, 200):  # test_vit takes 160×160: of 100 that is all there is
        make_toy_folder(tmp_path / f"{side}", size=side, train=12, test=2)
        data = load(make_smoke_config(data_dir=str(tmp_path / f"{side}"), output_dir=str(tmp_path / f"out{side}")))
        runs = [make_run(data, name) for name in ("cnn", "vit")]
        for run in runs:
            assert (
                next(iter(run.from_pixels.samples.batches(4, 1)))[0].shape[-1]
                == run.depends_on()["image_size"]
                == run.image_size
            )
        sides[side] = [run.image_size for run in runs]
        features, encoder = runs[1].features, runs[1].features.encoder
        assert features.train_images.paths == data.train.paths
        torch.testing.assert_close(
            features.train.rows.values, encoder(features.train_images.images.values), rtol=0, atol=1e-4
        )
        assert extract_split(encoder, data.val, data) is features.val  # this run has had it before
    assert sides == {100: [32, 100], 200: [32, 160]}
