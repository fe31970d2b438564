"""How far long work has got: one line that is rewritten in place, in a notebook and on a terminal; a few in a log."""

import shutil
import sys
import time
from collections.abc import Callable

SILENT_S = 1  # what takes less is over before its line could be read
REWRITE_S = 0.2  # between two versions of a line that is rewritten
LOG_S = 10  # between two lines of a log
SHOWN = (1, 5, 10, 20, 50, 100, 200, 500)  # epochs that the summary of a training has
LOG = "hw1_log"  # marks, in a kernel's messages, what a log of its run should have


class Progress:
    """Shows `title: 37 of 80 unit, 3.1 unit/s, 14 s left`, and in the end what it took.

    In a kernel it is one display and on a terminal one row, rewritten; anywhere else (a file, a pipe, another `say`) a
    line of its own, one in LOG_S seconds. Work of less than a second shows nothing but its `final`.

    As a context manager it closes itself: after an exception what was shown last stays.

    Args:
        total: how much there is to do, in `unit`.
        every: show every update, at once: each of them has something to say, as a training's epochs do.
        say: where lines go. Only what is printed is rewritten.
        instead_of: earlier work, closed, whose display in a kernel this one takes over: of a series the last one stays.
    """

    def __init__(
        self,
        title: str,
        total: float,
        unit: str,
        *,
        every: bool = False,
        say: Callable[[str], object] = print,
        instead_of: "Progress | None" = None,
    ) -> None:
        self.title, self.total, self.unit, self.every = title, total, unit, every
        self._start = self._done = 0.0
        self._began = self._logged = time.monotonic()
        self._rewritten = self._began + SILENT_S - REWRITE_S
        self._print = say
        self._in_kernel = say is print and _in_kernel()
        self._on_terminal = say is print and not self._in_kernel and sys.stdout.isatty()
        self._display = instead_of._display if instead_of else None  # of the kernel
        self._width = 0  # of the row that stands on the terminal
        self._shown = self._closed = False

    def begin(self, done: float) -> None:
        """The work begins now, after so much of it was done before."""
        self._start = self._done = done
        self._began = self._logged = time.monotonic()

    def update(self, done: float, note: str = "") -> None:
        """So much is done by now. `note` stands in place of the rate."""
        self._done, now = done, time.monotonic()
        log = self.every or (now - self._logged >= LOG_S and done < self.total)
        if log or ((self._in_kernel or self._on_terminal) and now - self._rewritten >= REWRITE_S):
            left = (now - self._began) / max(done - self._start, 1e-9) * (self.total - done)
            amount = f"{done:,.0f} of {self.total:,.0f} {self.unit}"
            self._show(f"{self.title}: {amount}, {note or self._rate(now)}, {left:,.0f} s left", log)
            self._logged = now if log else self._logged
            self._rewritten, self._shown = now, True

    def say(self, line: str) -> None:
        """A line of its own, while the work goes on."""
        self._clear()
        self._print(line)

    def close(self, final: str | None = None) -> None:
        """Leave `final`, of one or more lines, in place of the line: if None, and all is done, what it took."""
        now, self._closed = time.monotonic(), True
        if final is None and self._shown and self._done >= self.total and not self.every:
            took = f"{self.total:,.0f} {self.unit} in {now - self._began:,.0f} s"
            final = f"{self.title}: {took}, {self._rate(now)}"
        if final is not None:
            self._clear()
            self._on_terminal = False
            self._show(final, log=True)
        elif self._width:
            print()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        if not self._closed:
            self.close()

    def _rate(self, now: float) -> str:
        rate = (self._done - self._start) / max(now - self._began, 1e-9)
        return f"{rate:,.0f} {self.unit}/s" if rate >= 10 else f"{rate:.2g} {self.unit}/s"

    def _show(self, text: str, log: bool) -> None:
        if self._in_kernel:
            from IPython.display import display

            how = {"raw": True, "transient": {LOG: True} if log else {}}
            if self._display:
                self._display.update({"text/plain": text}, **how)
            else:
                self._display = display({"text/plain": text}, display_id=True, **how)
        elif self._on_terminal:
            row = text[: shutil.get_terminal_size().columns - 1]
            print(f"\r{row.ljust(self._width)}", end="\r", flush=True)
            self._width = len(row)
        else:
            self._print(text)

    def _clear(self) -> None:
        """Take the row off the terminal."""
        if self._width:
            print(f"\r{' ' * self._width}", end="\r")
            self._width = 0


def _in_kernel() -> bool:
    """Whether this is a notebook's process, in which a display can be rewritten."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None


def history_table(history: list[dict]) -> str:
    """What is worth keeping of a history from `fit`: its first epochs, the last one, and a few between."""
    best = max(history, key=lambda row: row["val_accuracy"])
    shown = [row for row in history if row["epoch"] in SHOWN or row is history[-1]]
    lines = [
        f"  {row['epoch']:>5}   {row['train_loss']:10.3f}  {row['train_accuracy']:.3f}"
        f"   {row['val_loss']:8.3f}  {row['val_accuracy']:.3f}"
        for row in shown
    ]
    return "\n".join(
        [
            f"{len(history)} epochs in {history[-1]['elapsed_seconds']:,.0f} s; "
            f"best validation accuracy {best['val_accuracy']:.3f} (epoch {best['epoch']})",
            "  epoch   train loss  acc     val loss  acc",
            *lines,
        ]
    )
