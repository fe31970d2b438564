"""Put a copy of the package into the notebook's setup cell, for whoever opens or uploads the notebook alone.

python -m tools.carry (`make notebook`)
"""

import base64
import io
import re
import tarfile
from pathlib import Path

import nbformat

from hw1_utils.app.runner import NOTEBOOK
from hw1_utils.config import ROOT
from hw1_utils.io.files import atomic

COPY = re.compile(r'^set_up\("(.*)"\)', re.MULTILINE)  # base85 has neither quotation marks nor backslashes


def carried(notebook: Path = NOTEBOOK) -> dict[str, bytes]:
    """The files that the notebook carries, by their paths below the repository; none where it carries nothing."""
    (copy,) = (found[1] for cell in nbformat.read(notebook, as_version=4).cells if (found := COPY.search(cell.source)))
    if not copy:
        return {}
    with tarfile.open(fileobj=io.BytesIO(base64.b85decode(copy))) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def wanted(root: Path = ROOT) -> dict[str, bytes]:
    """The files that it should carry: the package, and what it requires."""
    package = root / "hw1_utils"
    inside = [*package.rglob("*.py"), *package.rglob("*.j2")]
    files = [root / "requirements.txt", *(file for file in inside if ".ipynb_checkpoints" not in file.parts)]
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in sorted(files)}


def carry(notebook: Path = NOTEBOOK, root: Path = ROOT) -> None:
    """Renew the copy, if it differs; nothing else in the notebook changes."""
    files = wanted(root)
    if carried(notebook) == files:
        return
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz", preset=9) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)  # of no time and nobody
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    copy = base64.b85encode(packed.getvalue()).decode()
    document = nbformat.read(notebook, as_version=4)
    for cell in document.cells:
        cell.source = COPY.sub(lambda _: f'set_up("{copy}")', cell.source)
    with atomic(notebook) as partial:
        nbformat.write(document, partial)


if __name__ == "__main__":
    carry()
