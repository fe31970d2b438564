"""docs/scale.md: files that are written as it says are read as this project's own."""

import re

import pytest
import torch

from hw1_utils import features
from hw1_utils.config import ROOT, make_config
from hw1_utils.features import compute
from hw1_utils.io.files import read_checked
from hw1_utils.models import load_encoder

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/scale.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def write_chunk():
    here = {}
    exec(BLOCKS[-1], here)
    return here["write_chunk"]


def test_features_that_were_written_elsewhere_come_from_the_cache(write_chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "CHUNK", 5)  # 12 images: 5 + 5 + 2
    config = make_config("smoke", encoder="test_vit")
    encoder = load_encoder(config, torch.device("cpu"), torch.float32)
    images = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    (elsewhere := tmp_path / "elsewhere").mkdir()
    for part in images.split(5):
        write_chunk(encoder, part, elsewhere, seconds=1.5)
    said, passes = [], []
    hook = encoder.register_forward_pre_hook(lambda module, args: passes.append(len(args[0])))
    found = compute(encoder, images, 4, elsewhere, timed=False, say=said.append)
    assert found.from_cache == 12 and passes == [] and said == ["  features of images: 12 images, from cache"]
    hook.remove()
    here = compute(encoder, images, 4, tmp_path / "here", say=said.append)
    torch.testing.assert_close(found.rows.values, here.rows.values, rtol=0, atol=1e-4)
    names = [sorted(path.name for path in folder.iterdir()) for folder in (elsewhere, tmp_path / "here")]
    assert names[0] == names[1] and len(names[0]) == 3
    tensors, notes = read_checked(elsewhere / names[0][0])
    assert list(tensors) == ["features"] and notes == {"machine": "elsewhere", "seconds": "1.5"}


def test_the_sketch_is_python(write_chunk):
    compile(BLOCKS[0], "docs/scale.md", "exec")
    assert len(BLOCKS) == 2
