"""Random folders under random settings: a run completes, or says in one sentence of its own what is wrong."""

import shutil
from pathlib import Path

import pytest
from conftest import SMALL
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from PIL import Image

from hw1_utils.config import make_config
from hw1_utils.errors import Hw1Error
from hw1_utils.experiment import cnn, evaluate_on_test, load, load_test, train
from hw1_utils.report import figures
from hw1_utils.report import tables as report

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore:Glyph")]  # no font has them all

MODES = ("RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "F")
NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=12
)
NASTY = st.sampled_from(["$\\bad$", "two\nlines", 'a,"b"', "-", "%s {x}", "nan", "0", " ", "<b>", "ünï", "猫" * 60])
CLASS_NAMES = st.one_of(NASTY, NAMES.filter(lambda name: name.strip(".") and len(name.encode()) < 200))
PARTS = [
    ("train", "test", "val"),
    ("Training", "Testing", "Validation"),
    ("seg_train/seg_train", "seg_test/seg_test", "dev_set"),
    ("wrap/train", "wrap/test", "wrap/valid"),
]
SIZES = st.one_of(st.none(), st.integers(-1, 40))
FIELDS = {
    "seed": st.one_of(st.integers(-1, 2**70), st.text(max_size=2), st.booleans()),
    "image_size": st.one_of(st.integers(6, 40), st.floats(), st.just(10**9)),
    "train_size": SIZES,
    "val_size": SIZES,
    "test_size": SIZES,
    "cnn_batch_size": st.integers(0, 100),
    "cnn_recipe": st.sampled_from(["tuned", "assignment", "short", "distilled", ""]),
    "short_epochs": st.sampled_from([1, 0, None]),
    "precision": st.sampled_from(["auto", "fp32", "bf16", "fp8"]),
    "skip_unreadable": st.sampled_from([True, False, 1]),
    "data_dir": st.sampled_from(["/nowhere", "", "\0"]),
    "epoch": st.integers(),
}
OVERRIDES = st.lists(st.sampled_from(sorted(FIELDS)), max_size=2).flatmap(
    lambda names: st.fixed_dictionaries({name: FIELDS[name] for name in names})
)


def picture(path: Path, mode: str, width: int, height: int) -> None:
    values = {"RGB": (200, 20, 90), "RGBA": (200, 20, 90, 40), "LA": (90, 40), "CMYK": (9, 90, 200, 20), "F": 0.5}
    Image.new(mode, (width, height), values.get(mode, 1)).save(path, format="TIFF" if mode in ("CMYK", "F") else "PNG")


@st.composite
def sound_folders(draw: st.DrawFn) -> list[tuple[str, str, object]]:
    """What nobody could object to."""
    picture = st.tuples(st.sampled_from(MODES[:-1]), st.integers(1, 40), st.integers(1, 40))
    least = dict(zip(draw(st.sampled_from(PARTS)), (4, 1, 1), strict=True))
    if draw(st.booleans()):
        least.popitem()  # no validation part of its own
    files = []
    for name in draw(st.lists(CLASS_NAMES, min_size=2, max_size=4, unique=True)):
        for part, few in least.items():
            files += [(part, name, contents) for contents in draw(st.lists(picture, min_size=few, max_size=few + 2))]
    return files


@st.composite
def folders(draw: st.DrawFn) -> list[tuple[str, str, object]]:
    """(part, class, contents): contents are a picture's mode and size, or the bytes of a file that is none."""
    classes = draw(st.lists(CLASS_NAMES, min_size=2, max_size=4, unique=True))
    files = []
    for part in ("train", "test"):
        for name in classes if draw(st.integers(0, 19)) else classes[1:]:
            count = draw(st.integers(0, 1) if draw(st.integers(0, 19)) == 0 else st.integers(4, 9))
            files += [(part, name, (draw(st.sampled_from(MODES)), draw(st.integers(1, 40)), 30)) for _ in range(count)]
    if draw(st.integers(0, 4)) == 0:
        files.append((draw(st.sampled_from(["train", "test"])), classes[-1], draw(st.binary(max_size=20))))
    return files


def build(root: Path, files: list[tuple[str, str, object]]) -> None:
    for i, (part, name, contents) in enumerate(files):
        folder = root / part / name
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(contents, bytes):
            (folder / f"{i}.png").write_bytes(contents)
        else:
            picture(folder / f"{i}.png", *contents)


def run(config) -> None:
    """The CNN's part of the story, to the last table."""
    data = load(config)
    trained = train(cnn(data, config.cnn_recipe))
    test = load_test(data)
    report.write_model(evaluate_on_test(trained, test), test)


EXAMPLES = {  # the same ones every time: a failure is to be seen by everybody
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}


@pytest.fixture
def attempt(tmp_path, capsys, monkeypatch):
    """`attempt(files, overrides)`: the run in a folder of its own; what it refuses to do, or None."""
    places = {
        "data_dir": str(tmp_path / "data"),
        "output_dir": str(tmp_path / "out"),
        "cnn_epochs": 1,
        "short_epochs": 1,
    }

    def attempt(files, overrides):
        shutil.rmtree(tmp_path, ignore_errors=True)
        build(tmp_path / "data", files)
        said = []
        for again in (False, True):  # the second time with what the first left on disk
            with monkeypatch.context() as patch:
                if again:
                    patch.setattr(figures, "save", lambda figure, path: path)  # drawing takes half the time
                try:
                    run(make_config("quick", **(SMALL | places | {"weights": "random"} | overrides)))
                except Hw1Error as error:
                    said.append(str(error))
            capsys.readouterr()
        assert len(set(said)) <= 1 and len(said) in (0, 2), said
        return said[0] if said else None

    return attempt


@settings(max_examples=25, **EXAMPLES)
@given(files=sound_folders())
def test_a_sound_folder_is_never_refused(attempt, files):
    assert attempt(files, {}) is None


@settings(max_examples=30, **EXAMPLES)
@given(files=folders(), overrides=OVERRIDES)
def test_a_run_completes_or_says_what_is_wrong_in_one_sentence(attempt, files, overrides):
    sentence = attempt(files, overrides)
    event("completed" if sentence is None else "refused")
    if sentence is not None:
        assert "\n" not in sentence and 20 < len(sentence) < 700 and sentence[-1] in ".?", sentence
