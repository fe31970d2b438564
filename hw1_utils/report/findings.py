"""What the studies of the data have found, in front of the verdict: some of it could turn that."""

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
    """As Markdown, to stand above the conclusion: what could turn it first, in bold, then the others; or nothing.

    Bold words in a finding that could turn the verdict are as bold as the rest: Markdown has no bold in bold.
    """
    # `literal` writes a name's own asterisks as \\*, so two in a row are always markup.
    turning = [f"- **{one.text.replace('**', '')}**" for one in findings if one.turns]
    others = [f"- {one.text}" for one in findings if not one.turns]
    blocks = [
        ["**This could turn the verdict below:**", "", *turning],
        ["What else was found:" if turning else "What was found in the data:", "", *others],
    ]
    return "".join("\n".join(block) + "\n\n" for block, lines in zip(blocks, (turning, others), strict=True) if lines)
