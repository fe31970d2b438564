"""One line about long work: rewritten in a kernel and on a terminal, a few lines in a log."""

import contextlib
import io

import nbformat
import pytest

from hw1_utils.app.runner import execute
from hw1_utils.io import progress
from hw1_utils.io.progress import Progress, history_table


@pytest.fixture
def clock(monkeypatch):
    """`clock.now`, in seconds, stands still until it is changed."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


@contextlib.contextmanager
def terminal():
    """Of 60 columns: `rows()` are what stands on it."""
    screen = io.StringIO()
    screen.isatty = lambda: True

    def rows():
        shown = []
        for row in screen.getvalue().split("\n"):
            cells: list[str] = []
            for written in row.split("\r"):  # each overwrites what stands there
                cells = list(written) + cells[len(written) :]
            shown.append("".join(cells).rstrip())
        return shown

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(screen):
        patch.setenv("COLUMNS", "60")
        yield rows


def work(clock, shown, seconds, steps=4):
    for done in range(1, steps + 1):
        clock.now += seconds / steps
        shown.update(done)


def test_a_log_gets_a_line_in_ten_seconds_and_in_the_end_what_it_took(capsys, clock):
    with Progress("  decoding", 80, "images") as shown:
        work(clock, shown, 40, steps=80)
    assert capsys.readouterr().out.splitlines() == [
        "  decoding: 20 of 80 images, 2 images/s, 30 s left",
        "  decoding: 40 of 80 images, 2 images/s, 20 s left",
        "  decoding: 60 of 80 images, 2 images/s, 10 s left",
        "  decoding: 80 images in 40 s, 2 images/s",
    ]


def test_every_update_is_shown_where_each_has_something_to_say(capsys, clock):
    """A training's epochs, in a log: also where they take no time, and where some were trained before."""
    with Progress("CNN", 4, "epochs", every=True) as shown:
        shown.begin(1)
        for epoch in (2, 3, 4):
            clock.now += 0.1
            shown.update(epoch, f"acc 0.{epoch}")
        shown.close("CNN: 4 epochs\n epoch  acc")
    assert capsys.readouterr().out.splitlines() == [
        "CNN: 2 of 4 epochs, acc 0.2, 0 s left",
        "CNN: 3 of 4 epochs, acc 0.3, 0 s left",
        "CNN: 4 of 4 epochs, acc 0.4, 0 s left",
        "CNN: 4 epochs",
        " epoch  acc",
    ]


def test_remaining_time_counts_from_where_it_started(clock):
    lines = []
    shown = Progress("CNN", 10, "epochs", every=True, say=lines.append)
    shown.begin(6)
    clock.now += 8
    shown.update(8)
    assert lines == ["CNN: 8 of 10 epochs, 0.25 epochs/s, 8 s left"]


@pytest.mark.parametrize(("final", "left"), [(None, [""]), ("done", ["done", ""])])
def test_work_of_less_than_a_second_shows_nothing_but_its_final(clock, final, left):
    with terminal() as rows, Progress("x", 4, "images") as shown:
        work(clock, shown, 0.9)
        shown.close(final)
    assert rows() == left


def test_a_terminals_row_is_rewritten_and_replaced(clock):
    with terminal() as rows, Progress("features of a split with a long name", 40, "images") as shown:
        work(clock, shown, 40, steps=20)
        assert rows() == ["features of a split with a long name: 20 of 40 images, 0.5"]  # cut at its width
        shown.say("something else")
        shown.update(21, "from cache")
        assert rows()[0] == "something else"
        shown.close("12 images\n24 features")
    assert rows() == ["something else", "12 images", "24 features", ""]


def test_an_error_passes_and_leaves_what_was_shown(clock):
    with terminal() as rows, pytest.raises(KeyboardInterrupt), Progress("x", 40, "images") as shown:
        work(clock, shown, 40, steps=20)
        raise KeyboardInterrupt
    assert rows() == ["x: 20 of 40 images, 0.5 images/s, 40 s left", ""]


def test_lines_go_where_they_are_sent_and_are_not_rewritten_there(clock):
    lines = []
    with terminal() as rows, Progress("x", 80, "images", say=lines.append) as shown:
        work(clock, shown, 40, steps=80)
        shown.say("beside")
    assert [line.split(",")[0] for line in lines] == [
        *[f"x: {n} of 80 images" for n in (20, 40, 60)],
        *["beside", "x: 80 images in 40 s"],
    ]
    assert rows() == [""]


CELL = """
import time
from hw1_utils.io import progress
with progress.Progress("CNN", 3, "epochs", every=True) as shown:
    for epoch in (1, 2, 3):
        shown.update(epoch, f"acc 0.{epoch}")
    shown.close("CNN: 3 epochs\\n epoch  acc")
progress.SILENT_S = progress.REWRITE_S = 0
with progress.Progress("decoding", 100, "images") as shown:
    for i in range(100):
        shown.update(i + 1)
    shown.close("decoding: 100 images")
with progress.Progress("again", 100, "images", instead_of=shown) as shown:
    shown.close("decoding again: 100 images")
with progress.Progress("failing", 4, "images") as shown:
    shown.update(2)
    raise ValueError("while at work")
"""


def test_a_notebook_keeps_one_output_and_its_log_every_epoch(tmp_path):
    document = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(CELL, metadata={"tags": ["raises-exception"]})]
    )
    nbformat.write(document, tmp_path / "in.ipynb")
    said = []
    execute(tmp_path / "out.ipynb", notebook=tmp_path / "in.ipynb", echo=said.append)
    *shown, error = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[0].outputs
    assert [output.data for output in shown] == [
        {"text/plain": "CNN: 3 epochs\n epoch  acc"},
        {"text/plain": "decoding again: 100 images"},
        {"text/plain": "failing: 2 of 4 images, " + shown[-1].data["text/plain"].split(", ", 1)[1]},
    ]
    assert error.ename == "ValueError"
    epochs = [f"CNN: {n} of 3 epochs, acc 0.{n}, 0 s left" for n in (1, 2, 3)]
    assert said == [*epochs, "CNN: 3 epochs\n epoch  acc", "decoding: 100 images", "decoding again: 100 images"]


def test_of_a_long_history_its_beginning_its_end_and_its_best_epoch_are_told():
    row = {"train_loss": 2.0, "train_accuracy": 0.25, "val_loss": 1.0}
    changing = [{"epoch": e, "elapsed_seconds": 10.0 * e, "val_accuracy": 1 - abs(e - 17) / 100} for e in range(1, 31)]
    history = [row | epoch for epoch in changing]
    told = history_table(history).splitlines()
    assert told[0] == "30 epochs in 300 s; best validation accuracy 1.000 (epoch 17)"
    assert [line.split()[0] for line in told[2:]] == ["1", "5", "10", "20", "30"]
    assert told[-1].split() == ["30", "2.000", "0.250", "1.000", "0.870"]
