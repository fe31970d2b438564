"""Write the repository's address into the notebook's setup cell and every "Open in Colab" badge.

python -m tools.stamp https://github.com/OWNER/NAME
"""

import json
import sys
from pathlib import Path

import nbformat

from hw1_utils.app.runner import NOTEBOOK, write_notebook
from hw1_utils.config import ROOT
from hw1_utils.errors import Hw1Error
from hw1_utils.io.files import atomic

COLAB = "https://colab.research.google.com/"


def stamp(repo: str, files: tuple[Path, ...] = (NOTEBOOK, ROOT / "README.md", ROOT / "README.ru.md")) -> None:
    """Write the repository's address into the notebook's setup cell and every "Open in Colab" badge.

    Raises:
        Hw1Error: not a GitHub address of the form https://github.com/OWNER/NAME.
    """
    parts = repo.rstrip("/").removesuffix(".git").split("/")
    if len(parts) != 5 or parts[:3] != ["https:", "", "github.com"] or not all(parts[3:]):
        raise Hw1Error(f"the address must look like https://github.com/OWNER/NAME, not {repo!r}.")
    owner, name = parts[3:]
    address = f"{COLAB}github/{owner}/{name}/blob/main/hw1.ipynb"
    for file in files:
        if file.suffix == ".ipynb":
            document = nbformat.read(file, as_version=4)
            for cell in document.cells:
                cell.source = _stamped(cell.source, repo, address)
            write_notebook(document, file)
        else:
            text = _stamped(file.read_text(encoding="utf-8"), repo, address)
            with atomic(file) as partial:
                partial.write_text(text, encoding="utf-8")


def _stamped(text: str, repo: str, address: str) -> str:
    lines = []
    for line in text.split("\n"):
        if line.startswith("REPO_URL = "):
            comment = line[line.index("  #") :] if "  #" in line else ""
            line = f"REPO_URL = {json.dumps(repo)}{comment}"
        elif line.startswith("[![Open in Colab]"):
            line = line[: line.rindex("](") + 2] + address + ")"
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        stamp(*sys.argv[1:] or [""])
    except Hw1Error as error:
        sys.exit(f"hw1: {error}")
    print("Stamped hw1.ipynb, README.md and README.ru.md.")
