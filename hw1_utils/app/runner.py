"""Execute the notebook headless, echo its progress, and leave an executed copy."""

import ast
import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbclient.util import run_sync

from ..config import ROOT
from ..errors import Hw1Error
from ..io.files import atomic
from ..io.progress import LOG

NOTEBOOK = ROOT / "hw1.ipynb"
UNTOUCHED = (("profile", "auto"), ("studies", "auto"))  # in the notebook's cell of settings
LIVE = "live"  # tag of cells whose output only lives while the kernel does (the TensorBoard frame)
SERVER_PATIENCE_S = 3  # for a TensorBoard server to end


def own_settings(notebook: Path) -> dict[str, object]:
    """Fields of Config that the notebook's own cell of settings gives; what it leaves as it was is not among them.

    Raises:
        Hw1Error: they are not plain values.
    """
    cells = nbformat.read(notebook, as_version=4).cells
    source = "\n".join(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    try:
        assigned = [line for line in ast.parse(source).body if isinstance(line, ast.Assign)]
        said = {ast.unparse(line.targets[0]): ast.literal_eval(line.value) for line in assigned}
        settings = {"profile": said["PROFILE"], "studies": said["STUDIES"]} | said["OVERRIDES"]
    except (SyntaxError, ValueError, TypeError, KeyError) as error:
        raise Hw1Error(
            f"{notebook.name}'s cell of settings cannot be read from outside ({error}): give plain values in it to "
            "PROFILE, STUDIES and OVERRIDES, or run it in Jupyter."
        ) from error
    return {name: value for name, value in settings.items() if (name, value) not in UNTOUCHED}


class _Client(NotebookClient):
    """Prints what cells print, as they print it; ends what its kernel has started, and nothing else."""

    echo: Callable[[str], None]

    def process_message(self, msg: dict, cell: dict, cell_index: int) -> object:
        content = msg["content"]
        if LIVE not in cell.metadata.get("tags", []):
            if msg["msg_type"] == "stream":
                self.echo(content["text"])
            elif LOG in content.get("transient", {}):
                self.echo(content["data"]["text/plain"])
        return super().process_message(msg, cell, cell_index)

    def create_kernel_manager(self) -> AsyncKernelManager:
        os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # else an older ipykernel's debugger warns
        # Without any kernel spec, `python3` is this very Python; one on this machine may name another.
        return AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))

    async def async_start_new_kernel(self, **kwargs: object) -> None:
        # nbclient's own handler ends the kernel but not the waiting for it; cancelled, it ends both, in order.
        with suppress(NotImplementedError):  # Windows has no such handlers; there asyncio.run cancels by itself
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, asyncio.current_task().cancel)
        await super().async_start_new_kernel(**kwargs)

    async def run(self) -> None:
        """Execute all cells and leave the kernel alive. Raises asyncio.CancelledError after Ctrl-C."""
        try:
            await self.async_execute(cleanup_kc=False)
        except DeadKernelError:
            if asyncio.current_task().cancelling():  # nbclient takes Ctrl-C for a dead kernel
                raise asyncio.CancelledError from None
            raise

    async def _async_cleanup_kernel(self) -> None:
        """End the kernel and the TensorBoard servers that it started. What fails here never hides how the run ended."""
        with suppress(Exception):
            await self._end_servers()
        if self.km is not None:
            with suppress(Exception):
                await super()._async_cleanup_kernel()

    _cleanup_kernel = run_sync(_async_cleanup_kernel)  # nbclient's way out when Python ends before the run does

    async def _end_servers(self) -> None:
        """Ask them to end, so that they take back the files by which the next notebook would look for them."""
        own = _servers_of(self.km.provisioner.pgid)
        for pid in own:
            with suppress(OSError):  # one may have gone by itself
                os.kill(pid, signal.SIGTERM)
        patience = time.monotonic() + SERVER_PATIENCE_S
        while own & _servers_of(self.km.provisioner.pgid) and time.monotonic() < patience:
            await asyncio.sleep(0.05)


def _servers_of(group: int | None) -> set[int]:
    """Process numbers of the TensorBoard servers in a process group: a kernel leads one, its children belong to it.

    Those started by hand or by another run are in other groups, and of those that were killed only a file is left.
    (Windows knows no such groups: there a server outlives its run.)
    """
    from tensorboard import manager

    found = set()
    for info in manager.get_all() if group else ():
        with suppress(OSError):
            if os.getpgid(info.pid) == group:
                found.add(info.pid)
    return found


def execute(output: Path, *, notebook: Path = NOTEBOOK, echo: Callable[[str], None] = print) -> None:
    """Run all cells in a fresh kernel of this Python and write the executed notebook.

    The kernel's settings come from the environment (HW1_PROFILE and so on). If a cell fails, the notebook up
    to that point is written beside `output` as `*.failed.ipynb`. Both are written before the kernel is ended.

    Raises:
        Hw1Error: a cell failed (the message is that cell's own), or the kernel was killed.
        KeyboardInterrupt: Ctrl-C; the kernel has been ended.
    """
    document = nbformat.read(notebook, as_version=4)
    client = _Client(
        document,
        timeout=None,
        resources={"metadata": {"path": str(ROOT)}},
        extra_arguments=["--log-level=ERROR"],  # else each start warns that its sockets are not encrypted
        shutdown_kernel="immediate",  # Ctrl-C must not wait for an epoch; what is finished is on disk
    )
    client.echo = lambda text: echo(text.rstrip("\n")) if text.strip() else None

    def announce(cell: dict, cell_index: int) -> None:
        before = document.cells[cell_index - 1]
        if cell.cell_type == "code" and before.cell_type == "markdown":
            for line in before.source.splitlines():
                if line.startswith("#"):
                    heading = line.lstrip("# ")
                    echo(f"\n{heading}")

    client.on_cell_start = announce

    async def story() -> None:
        try:
            await client.run()
            write_notebook(document, output)
        except CellExecutionError as error:
            failed, where = output.with_suffix(".failed.ipynb"), ""
            with suppress(Hw1Error):  # a full disk, say, which may be the error of the cell as well
                write_notebook(document, failed)
                where = f" (the notebook up to this point: {failed.name})"
            raise Hw1Error(f"{error.evalue}{where}") from error
        except DeadKernelError as error:
            raise Hw1Error(
                "The notebook's process was ended from outside, perhaps for want of memory: run it again, and it "
                "continues after the last finished epoch."
            ) from error
        finally:
            await client._async_cleanup_kernel()

    try:
        asyncio.run(story())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def write_notebook(document: nbformat.NotebookNode, path: Path) -> None:
    """Write the notebook without what only a live kernel or this machine can make sense of.

    Lines that a cell printed one after the other become one output. (nbclient's `coalesce_streams` would put those that
    follow a table or a progress display in front of it.)
    """
    for cell in document.cells:
        cell.metadata.pop("execution", None)
        if LIVE in cell.metadata.get("tags", []):
            cell.outputs = []
        elif cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
    document.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    with atomic(path) as partial:
        nbformat.write(document, partial)


def _joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    joined: list[nbformat.NotebookNode] = []
    for output in outputs:
        if "name" in output and joined and output.name == joined[-1].get("name"):  # of a stream
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined
