"""Execute the notebook headless, echo its progress, and leave an executed copy; stamp it with an address."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from .config import ROOT
from .files import Hw1Error, atomic

NOTEBOOK = ROOT / "hw1.ipynb"
LIVE = "live"  # tag of cells whose output only lives while the kernel does (the TensorBoard frame)
COLAB = "https://colab.research.google.com/"


class _EchoingClient(NotebookClient):
    """Prints what cells print, as they print it; Ctrl-C ends the waiting for a cell."""

    echo: Callable[[str], None]

    def process_message(self, msg: dict, cell: dict, cell_index: int) -> object:
        if msg["msg_type"] == "stream" and LIVE not in cell.metadata.get("tags", []):
            self.echo(msg["content"]["text"])
        return super().process_message(msg, cell, cell_index)

    def create_kernel_manager(self) -> AsyncKernelManager:
        # Without any kernel spec, `python3` is this very Python; one on this machine may name another.
        return AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))

    async def async_start_new_kernel(self, **kwargs: object) -> None:
        # nbclient's own handler ends the kernel but not the waiting for it; cancelled, it ends both, in order.
        with suppress(NotImplementedError):  # Windows has no such handlers; there asyncio.run cancels by itself
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, asyncio.current_task().cancel)
        await super().async_start_new_kernel(**kwargs)

    def _cleanup_kernel(self) -> None:
        if self.km is not None:  # as Python ends: else Ctrl-C came while the kernel was being ended, and all is done
            super()._cleanup_kernel()

    async def run(self) -> None:
        """Execute all cells. Raises asyncio.CancelledError after Ctrl-C, which nbclient takes for a dead kernel."""
        try:
            await self.async_execute()
        except DeadKernelError:
            if asyncio.current_task().cancelling():
                raise asyncio.CancelledError from None
            raise


def execute(output: Path, *, notebook: Path = NOTEBOOK, echo: Callable[[str], None] = print) -> None:
    """Run all cells in a fresh kernel of this Python and write the executed notebook.

    The kernel's settings come from the environment (HW1_PROFILE and so on). If a cell fails, the notebook up
    to that point is written beside `output` as `*.failed.ipynb`.

    Raises:
        Hw1Error: a cell failed (the message is that cell's own), or the kernel was killed.
        KeyboardInterrupt: Ctrl-C; the kernel has been ended.
    """
    document = nbformat.read(notebook, as_version=4)
    client = _EchoingClient(
        document,
        timeout=None,
        resources={"metadata": {"path": str(ROOT)}},
        extra_arguments=["--log-level=ERROR"],  # else each start warns that its sockets are not encrypted
        shutdown_kernel="immediate",  # Ctrl-C must not wait for an epoch; what is finished is on disk
    )
    client.echo = lambda text: echo(text.rstrip("\n")) if text.strip() else None

    def announce(cell: dict, cell_index: int) -> None:
        before = document.cells[cell_index - 1]
        if cell.cell_type == "code" and before.source.startswith("#") and before.cell_type == "markdown":
            echo(f"\n{before.source.splitlines()[0].lstrip('# ')}")

    client.on_cell_start = announce
    servers = _tensorboards()
    try:
        asyncio.run(client.run())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    except CellExecutionError as error:
        failed = output.with_suffix(".failed.ipynb")
        _write(document, failed)
        raise Hw1Error(f"{error.evalue} (the notebook up to this point: {failed.name})") from error
    except DeadKernelError as error:
        raise Hw1Error(
            "The notebook's process was ended from outside, perhaps for want of memory: run it again, and it continues "
            "after the last finished epoch."
        ) from error
    finally:
        for pid in _tensorboards() - servers:
            os.kill(pid, signal.SIGTERM)
    _write(document, output)


def stamp(repo: str, files: tuple[Path, ...] = (NOTEBOOK, ROOT / "README.md", ROOT / "README.ru.md")) -> None:
    """Write the repository's address into the notebook's setup cell and every "Open in Colab" badge.

    Raises:
        Hw1Error: not a GitHub address of the form https://github.com/OWNER/NAME.
    """
    parts = repo.rstrip("/").removesuffix(".git").split("/")
    if len(parts) != 5 or parts[:3] != ["https:", "", "github.com"] or not all(parts[3:]):
        raise Hw1Error(f"--repo must look like https://github.com/OWNER/NAME, not {repo!r}.")
    owner, name = parts[3:]
    address = f"{COLAB}github/{owner}/{name}/blob/main/hw1.ipynb"
    for file in files:
        if file.suffix == ".ipynb":
            document = nbformat.read(file, as_version=4)
            for cell in document.cells:
                cell.source = _stamped(cell.source, repo, address)
            _write(document, file)
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


def _write(document: nbformat.NotebookNode, path: Path) -> None:
    """Write the notebook without what only a live kernel or this machine can make sense of."""
    for cell in document.cells:
        cell.metadata.pop("execution", None)
        if LIVE in cell.metadata.get("tags", []):
            cell.outputs = []
    document.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    with atomic(path) as partial:
        nbformat.write(document, partial)


def _tensorboards() -> set[int]:
    from tensorboard import manager

    return {info.pid for info in manager.get_all()}
