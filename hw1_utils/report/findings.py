"""What the studies of the data have found: in front of the verdict, where it could turn that, else below it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from ..io.files import write_csv


@dataclass(frozen=True)
class Finding:
    """What one study has found about the data."""

    text: str  # whole sentences, as Markdown on one line; names from outside have passed through `words.literal`
    turns: bool  # whether the verdict on CNN and probe could be another one without it


def write_findings(folder: Path, findings: Sequence[Finding]) -> None:
    """Write findings.csv (text, turns), of which the page is made; without findings it has no rows."""
    write_csv(folder / "findings.csv", pd.DataFrame([asdict(one) for one in findings], columns=["text", "turns"]))


def before_the_verdict(findings: Sequence[Finding]) -> str:
    """What could turn the verdict, as Markdown to stand above the conclusion, in bold; or nothing.

    Bold words in such a finding are as bold as the rest: Markdown has no bold in bold.
    """
    # `literal` writes a name's own asterisks as \\*, so two in a row are always markup.
    turning = [f"- **{one.text.replace('**', '')}**" for one in findings if one.turns]
    return _block("**This could turn the verdict below:**", turning) + "\n" if turning else ""


def after_the_verdict(findings: Sequence[Finding]) -> str:
    """What else was found, as Markdown to stand below the conclusion; or nothing."""
    others = [f"- {one.text}" for one in findings if not one.turns]
    return "\n" + _block("**What the folder hides:**", others) if others else ""


def _block(head: str, lines: list[str]) -> str:
    return "\n".join([head, "", *lines]) + "\n"
