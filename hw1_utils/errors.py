"""What goes wrong, in one sentence that says what to do."""

from collections.abc import Iterable


class Hw1Error(Exception):
    """What went wrong and what to do about it, in one sentence meant for the person at the keyboard."""

    def __init__(self, sentence: str) -> None:
        super().__init__(" ".join(sentence.split()))  # a file name or another library's words may hold line breaks

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in a notebook: the sentence alone, no traceback."""
        return [f"hw1: {self}"]


def some(names: Iterable[str], most: int = 5) -> str:
    """Up to `most` names."""
    names = list(names)
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
