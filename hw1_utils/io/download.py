"""Fetching a file over HTTP, with a bound on every wait."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from .progress import Progress

ANSWER_S = 4  # until a host has said anything at all
TIMEOUT_S = 5  # to connect, and between two pieces of a download
PIECE = 1 << 20  # bytes read at a time


def download(url: str, target: Path, size: int, what: str, say: Callable[[str], object] = print) -> None:
    """Write what `url` gives to `target`: to be verified by the caller. What is longer than `size` is not read on.

    Args:
        size: expected, in bytes.
        what: it is, in a word or two, for the line about its progress.
        say: see `Progress`.

    Raises:
        OSError, http.client.HTTPException: nothing is there, nobody answers in time, or the disk refuses.
    """
    title = f"Downloading {what} from {urlsplit(url).netloc}"
    with _open(url) as response, open(target, "wb") as file, Progress(title, size / 1e6, "MB", say=say) as progress:
        progress.say(f"{title} ({size / 1e6:.0f} MB) ...")
        while file.tell() <= size and (piece := response.read1(PIECE)):
            file.write(piece)
            progress.update(file.tell() / 1e6)


def silent(urls: Sequence[str]) -> dict[str, Exception]:
    """Those of the addresses where nothing answers within ANSWER_S, and why. All are asked at once."""
    pool = ThreadPoolExecutor(len(urls) or 1)
    asked = {url: pool.submit(_ask, url) for url in urls}
    pool.shutdown(wait=False)
    wait(asked.values(), timeout=ANSWER_S)
    late = TimeoutError("no answer in time")  # of a resolver, or of each of many addresses
    failed = {url: answer.exception() if answer.done() else late for url, answer in asked.items()}
    return {url: error for url, error in failed.items() if error}


def _ask(url: str) -> None:
    with suppress(urllib.error.HTTPError):  # it answered
        urllib.request.urlopen(_request(url, method="HEAD"), timeout=ANSWER_S).close()


def _request(url: str, method: str = "GET") -> urllib.request.Request:
    return urllib.request.Request(url, headers={"User-Agent": "hw1_utils"}, method=method)  # some refuse Python's own


def _open(url: str) -> http.client.HTTPResponse:
    """urlopen, but at most 2 × TIMEOUT_S in all: by itself it waits TIMEOUT_S for each address a host has."""
    thread = ThreadPoolExecutor(1)
    try:
        return thread.submit(urllib.request.urlopen, _request(url), timeout=TIMEOUT_S).result(2 * TIMEOUT_S)
    finally:
        thread.shutdown(wait=False)
