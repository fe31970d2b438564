"""Predictions for many files: the CSV is that of `predict`, whatever happens while it is made, and of nothing else."""

import errno
import itertools
import json
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import SMALL
from PIL import Image

from hw1_utils.app.cli import main
from hw1_utils.config import make_config
from hw1_utils.deploy import bulk
from hw1_utils.deploy.bulk import Output, predict_to_csv
from hw1_utils.deploy.saved import columns, load_model, predict, save_model
from hw1_utils.errors import Hw1Error
from hw1_utils.experiment import cnn, load
from hw1_utils.io.ranks import ALONE, Ranks
from hw1_utils.io.toy import make_toy_folder

CPU = torch.device("cpu")
COUNT = 23  # pictures: parts of 5, the last one of 3

pytestmark = pytest.mark.usefixtures("one_thread", "small_parts")


@pytest.fixture(scope="module")
def file(tmp_path_factory, one_thread):
    """An untrained CNN's."""
    root = tmp_path_factory.mktemp("run")
    make_toy_folder(root / "toy")
    run = cnn(load(make_config("smoke", **SMALL, data_dir=str(root / "toy"), output_dir=str(root / "out"))))
    return save_model(SimpleNamespace(run=run, model=run.model), {})


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(bulk, "PART", 5)
    monkeypatch.setattr(bulk, "BATCH", 2)


@pytest.fixture
def pictures(tmp_path):
    """A folder of folders with names that a CSV, a shell or UTF-8 minds, a file that is no picture, and a text."""
    names = [
        "a.png",
        "a,b.png",
        'a"b.png',
        "a\nb.png",
        "a\rb.png",
        " a .png",
        "=1+1.png",
        "NA",
        os.fsdecode(b"\xe9.png"),
    ]
    names += [f"deep/er/{i}.png" for i in range(COUNT - len(names) - 1)]
    for value, name in enumerate(names):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (9 * value, 255 - 9 * value, 100)).save(path, "PNG")
    (tmp_path / "pictures" / "deep" / "bad.png").write_text("no picture")
    (tmp_path / "pictures" / "notes.txt").write_text("no picture")
    return tmp_path / "pictures"


def run(file, pictures, output, ranks=ALONE, **options):
    said = []
    predict_to_csv(load_model(file, CPU), file, [str(pictures)], output, ranks, say=said.append, **options)
    return said


def beside(output):
    return sorted(path.name for path in output.parent.iterdir() if path.name.startswith(output.name))


def test_the_csv_is_the_table_of_predict_in_its_order(file, pictures, tmp_path):
    output, model = tmp_path / "new" / "folder" / "p.csv", load_model(file, CPU)
    said = run(file, pictures, output)
    found = pd.read_csv(output, keep_default_na=False, na_values={"probability": [""]})
    paths = [str(pictures / name) for name in os.listdir(pictures) if (pictures / name).is_file()]
    paths = [*sorted(set(paths) - {str(pictures / "notes.txt")}), str(pictures / "deep/bad.png")]
    paths += sorted(map(str, (pictures / "deep/er").iterdir()))
    table = predict(model, paths, batch_size=2)
    assert found.columns.tolist() == table.columns.tolist() == columns(model, unsure=False)
    assert found["path"].tolist() == [p.replace("\r", "\\r").replace("\udce9", "\\udce9") for p in paths]
    assert len(found) == COUNT and found["prediction"].tolist() == table["prediction"].fillna("").tolist()
    assert found["probability"].to_numpy() == pytest.approx(table["probability"].astype(float), abs=1e-6, nan_ok=True)
    assert found["error"][found["error"] != ""].tolist() == ["not an image"]
    assert said[0] == f"23 files; left out, by name no image: 1 ({pictures}/notes.txt)"
    assert said[-1] == f"{output}: 23 files, 1 that cannot be read as images: their rows say why"
    assert beside(output) == ["p.csv", "p.csv.json"] and json.loads((tmp_path / "new/folder/p.csv.json").read_text())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a child is killed")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_write_it_goes_on_and_the_csv_is_the_same(file, pictures, tmp_path, after):
    """Right before or after a file is in its place: list, settings, parts, the CSV, what is said of it."""
    run(file, pictures, whole := tmp_path / "whole.csv")
    model, output, replace = load_model(file, CPU), tmp_path / "p.csv", os.replace

    def dies_at(write):
        """How a process ends that is killed at this write."""
        writes = itertools.count(1)

        def dying(source, target):
            last = next(writes) == write
            if after or not last:
                replace(source, target)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)

        if (child := os.fork()) == 0:
            os.replace = dying
            predict_to_csv(model, file, [str(pictures)], output, ALONE, say=lambda line: None)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    ends = []
    for write in itertools.count(1):
        ends.append(dies_at(write))
        run(file, pictures, output)
        assert output.read_bytes() == whole.read_bytes()
        assert beside(output) == ["p.csv", "p.csv.json"]
        assert Output(output).about.read_bytes() == Output(whole).about.read_bytes()
        if ends[-1] == 0:
            break
        output.unlink()
    assert ends == [-signal.SIGKILL] * 9 + [0]


def test_processes_share_the_parts_and_the_csv_is_that_of_one(file, pictures, tmp_path, monkeypatch):
    class Turn(Ranks):
        """The first of three processes takes one part, then the others theirs, one after the other."""

        def share(self, items):
            return iter([items[self.rank]] if self.rank < 2 else items[2:])

        def barrier(self):
            if self.is_first and next(met) == 1:
                for rank in (2, 1):
                    assert run(file, pictures, output, Turn(rank, 3)) == []  # the first one speaks

    met, output = itertools.count(), tmp_path / "p.csv"
    run(file, pictures, output, Turn(0, 3))
    run(file, pictures, whole := tmp_path / "whole.csv")
    assert output.read_bytes() == whole.read_bytes() and next(met) == 2


@pytest.fixture
def begun(file, pictures, tmp_path, monkeypatch):
    """A CSV of which two parts are finished: the third found the disk full."""
    output, write = tmp_path / "p.csv", bulk.write_csv
    with monkeypatch.context() as patch:

        def full(path, table, **options):
            if path.name == "00000002.csv":
                patch.setattr(pd.DataFrame, "to_csv", no_room)
            write(path, table, **options)

        def no_room(*args, **options):
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(bulk, "write_csv", full)
        with pytest.raises(Hw1Error, match="00000002.csv cannot be written .No space left on device.: make room"):
            run(file, pictures, output)
    assert sorted(p.name for p in Output(output).parts.glob("*.csv")) == ["00000000.csv", "00000001.csv"]
    return output


def test_what_is_finished_is_not_computed_again(file, pictures, begun, monkeypatch, tmp_path):
    seen, real = [], bulk.predict
    monkeypatch.setattr(
        bulk, "predict", lambda model, names, *args, **kw: seen.extend(names) or real(model, names, *args, **kw)
    )
    assert "2 of 5 parts are finished" in run(file, pictures, begun)[0] and len(seen) == COUNT - 10
    run(file, pictures, whole := tmp_path / "whole.csv")
    assert begun.read_bytes() == whole.read_bytes()


def test_files_that_have_gone_have_rows_that_say_so_and_new_ones_are_refused(file, pictures, begun):
    (pictures / "deep/er/3.png").unlink()
    new = pictures / "deep/er/33.png"
    shutil.copy(pictures / "a.png", new)
    with pytest.raises(
        Hw1Error, match=f"p.csv.parts was made from a list of files that lacks {new}: move away what is new"
    ):
        run(file, pictures, begun)
    new.unlink()
    assert run(file, pictures, begun)[0] == f"1 of 23 files have gone since {begun} was begun"
    found = pd.read_csv(begun)
    assert len(found) == COUNT and "No such file or directory" in found["error"].tolist()
    with pytest.raises(Hw1Error, match="p.csv was made from other files: give another --output, or delete it"):
        run(file, pictures, begun)


@pytest.mark.parametrize("finished", [False, True])
def test_another_model_other_settings_and_other_arguments_are_refused(file, pictures, begun, tmp_path, finished):
    if finished:
        run(file, pictures, begun)
    named = "p.csv" if finished else "p.csv.parts"
    other = Path(shutil.copy(file, tmp_path / "other.safetensors"))
    other.write_bytes(file.read_bytes() + b" ")
    model, before = load_model(file, CPU), begun.parent.joinpath(named).stat().st_mtime_ns

    def refused(what, source=file, arguments=(str(pictures),), **options):
        with pytest.raises(Hw1Error, match=f"/{named} was made with {what}: give another --output, or delete it"):
            predict_to_csv(model, source, list(arguments), begun, ALONE, **options)

    refused("another model", other)
    refused("another target accuracy", target_accuracy=0.5)
    refused("other files", arguments=[str(pictures / "deep")])
    refused("other files", arguments=[str(pictures), str(pictures / "a.png")])
    if finished:
        assert begun.stat().st_mtime_ns == before


def test_the_output_may_lie_in_the_folder_of_the_pictures(file, pictures, monkeypatch):
    output = pictures / "p.csv"
    first = run(file, pictures, output)
    assert "notes.txt" in first[0] and "p.csv" not in first[0]
    assert run(file, pictures, output) == [first[-1].replace("p.csv:", "p.csv is complete:")]


def test_an_output_of_something_else_is_left_alone(file, pictures, tmp_path):
    mine, folder = tmp_path / "mine.csv", tmp_path / "folder.csv"
    mine.write_text("mine")
    folder.mkdir()
    with pytest.raises(Hw1Error, match="mine.csv is there, and nothing says what it was made from"):
        run(file, pictures, mine)
    for path in (folder, tmp_path / "p.txt", tmp_path / "p"):
        with pytest.raises(Hw1Error, match="cannot be written to .*: name a file that ends in .csv"):
            run(file, pictures, path)
    with pytest.raises(Hw1Error, match="mine.csv.*: choose another --output"):
        run(file, pictures, mine / "p.csv")
    assert mine.read_text() == "mine" and beside(mine) == ["mine.csv"]


def test_nothing_to_predict_leaves_nothing(file, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").touch()
    with pytest.raises(Hw1Error, match="There is no .*/pohtos: name files or folders of images"):
        run(file, tmp_path / "pohtos", tmp_path / "p.csv")
    with pytest.raises(Hw1Error, match="There is no image in .*/empty, only .*/empty/a.txt"):
        run(file, tmp_path / "empty", tmp_path / "p.csv")
    assert beside(tmp_path / "p.csv") == []


def test_two_at_once_are_one_too_many(file, pictures, begun):
    with bulk._alone(Output(begun)):
        if (child := os.fork()) == 0:
            try:
                run(file, pictures, begun)
            except Hw1Error as error:
                os._exit(3 if "Another run is at work" in str(error) and "another --output" in str(error) else 4)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


def interrupted(*args, **options):
    raise KeyboardInterrupt


def test_from_a_shell(file, pictures, tmp_path, capsys, monkeypatch):
    command = ["predict", str(file), str(pictures), str(tmp_path / "missing.png"), "--output", str(tmp_path / "p.csv")]
    assert main(command) == 0 and capsys.readouterr().out.count("\n") == 2
    assert pd.read_csv(tmp_path / "p.csv")["error"].iloc[-1] == "No such file or directory"
    assert main(command) == 0 and "p.csv is complete: 24 files, 2 that cannot" in capsys.readouterr().out
    assert main([*command, "--json"]) == 1 and "take one of the two away" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(bulk, "predict", interrupted)
        assert main([*command[:-1], str(tmp_path / "q.csv")]) == 130
    said = capsys.readouterr().err
    assert said == "\nhw1: stopped; the same command continues with the parts that are missing.\n"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(command[:3]) == 1 and "only with --output FILE" in capsys.readouterr().err
