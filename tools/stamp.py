"""Write the repository's address into every "Open in Colab" badge: of the notebook and the READMEs.

python -m tools.stamp [https://github.com/OWNER/NAME]; without an address that of the git remote `origin`
"""

import re
import subprocess
import sys
from pathlib import Path

import nbformat

from hw1_utils.app.runner import NOTEBOOK
from hw1_utils.config import ROOT
from hw1_utils.errors import Hw1Error
from hw1_utils.io.files import atomic

FILES = (NOTEBOOK, ROOT / "README.md", ROOT / "README.ru.md")
GITHUB = re.compile(
    r"(?:https?://(?:[^@/]*@)?(?:www\.)?|ssh://git@|git@)github\.com[:/]([\w.-]+)/([\w.-]+?)(?:\.git)?/*", re.IGNORECASE
)
BADGE = re.compile(r"^(\[!\[Open in Colab\]\(.*\)\]\().*\)$", re.MULTILINE)


def origin(folder: Path = ROOT) -> str:
    """The address from which the repository was cloned, or to which it is pushed; "" if it has none."""
    command = ["git", "remote", "get-url", "origin"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout.strip()


def stamp(repo: str, files: tuple[Path, ...] = FILES) -> None:
    """Let the badges of these files open the notebook of a repository on GitHub, in any spelling of its address.

    Raises:
        Hw1Error: it is no address of a repository on GitHub; nothing is changed.
    """
    found = GITHUB.fullmatch(repo)
    if not found:
        raise Hw1Error(f"the address must look like https://github.com/OWNER/NAME, not {repo!r}.")
    badge = rf"\g<1>https://colab.research.google.com/github/{found[1]}/{found[2]}/blob/main/hw1.ipynb)"
    for file in files:
        if file.suffix == ".ipynb":
            document = nbformat.read(file, as_version=4)
            for cell in document.cells:
                cell.source = BADGE.sub(badge, cell.source)
            with atomic(file) as partial:
                nbformat.write(document, partial)
        else:
            text = BADGE.sub(badge, file.read_text(encoding="utf-8"))
            with atomic(file) as partial:
                partial.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        stamp(*sys.argv[1:] or [origin()])
    except Hw1Error as error:
        sys.exit(f"hw1: {error}")
    print("Stamped hw1.ipynb, README.md and README.ru.md.")
