"""The packages that a notebook needs, installed where they are missing."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from ..errors import Hw1Error

DISPENSABLE = {"thop"}  # without it one column of the costs stays empty
PATIENCE_S = 30  # for pip where it is asked for nothing else


def install(requirements: Path) -> None:
    """Install what a requirements file asks for and this Python lacks; nothing that is there is touched.

    pip is not even started where nothing is missing, and gives up soon where there is no network.

    Raises:
        Hw1Error: something that the run cannot do without is still missing.
    """
    lines = (line.partition("#")[0].strip() for line in requirements.read_text(encoding="utf-8").splitlines())
    wanted = [Requirement(line) for line in lines if line]
    if not (lacking := [requirement for requirement in wanted if not _is_there(requirement)]):
        return
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--retries=1", "--timeout=5"]
    try:
        done = subprocess.run(
            [*pip, *map(str, lacking)],
            capture_output=True,
            text=True,
            check=False,
            timeout=None if _needed(lacking) else PATIENCE_S,
        )
        why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    except subprocess.TimeoutExpired:
        why = "no answer in time"
    lacking = [requirement for requirement in wanted if not _is_there(requirement)]
    names = ", ".join(map(str, lacking))
    if _needed(lacking):
        raise Hw1Error(f"This Python lacks {names}, and pip cannot install it ({why}): install it, then run again.")
    if lacking:
        print(f"{names} cannot be installed ({why}): the column macs_thop stays empty.")


def _needed(lacking: list[Requirement]) -> bool:
    return not {requirement.name for requirement in lacking} <= DISPENSABLE


def _is_there(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(metadata.version(requirement.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False
