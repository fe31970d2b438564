"""A run in numbers that no clock has a part in: recorded before code is moved about, recorded again and compared after.

python -m tests.golden DIR                    runs smoke and a small quick in a copy of the repository, writes DIR
python -m tests.golden DIR --against OTHER    and prints what is different in OTHER; exit code 1 if anything is

Quick wants data/cifar10 and HW1_WEIGHTS, a file of real weights. One machine, one version of torch, one thread.
"""

import argparse
import difflib
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from hw1_utils.io.files import read_checked

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("hw1_utils", "hw1.ipynb", "requirements.txt")  # what a run needs, into a folder without outputs and caches
PROFILES: dict[str, dict] = {
    "smoke": {},
    "quick": {  # every study and recipe, on the least images of a seed whose mean colour passes for CIFAR-10's
        **{"seed": 2, "train_size": 400, "val_size": 100, "test_size": 100, "study_images": 100, "seeds": 2},
        **{"cnn_epochs": 6, "short_epochs": 3, "probe_epochs": 6, "cnn_batch_size": 64, "probe_batch_size": 16},
        **{"extract_batch_size": 16, "profile_steps": 3},
    },
}
# Left out: columns, rows and JSON fields that hold what a clock or a look at memory said, or the commit.
CLOCK = (
    "*seconds*",
    "*per_second",
    "training, s",
    "images/s",
    "*_ms",
    "peak_*_mb",
    "memory_before_mb",
    "top_operator*",
    "operators.csv/share",
    "git_commit",
)
CLOCK_PICTURES = ("convergence.png", "operators.png", "quality_and_cost.png", "input_size.png")  # drawn from them
CLOCK_WORDS = (
    (r"\d[\d,.]*(e-\d+)? (s|images/s)\b", r"# \2"),
    (r"takes the probe # s, .*? the CNN's # s; it predicts .*? the CNN \(.*? against", "takes the probe # against"),
    (r"`[^`]+` \(\d+%; ", "`#` (#%; "),  # the operator with the largest share of the time
    (r"(Feature extraction takes) .*? of", r"\1 # of"),
)
NAMES = ((r"tfevents\.\d+", "tfevents.#"), (r"\b(features|images)-[0-9a-f]{16,}", r"\1-#"))  # times, also in keys


def clock(name: object, file: str = "") -> bool:
    return any(fnmatch(str(name), pattern) or fnmatch(f"{file}/{name}", pattern) for pattern in CLOCK)


def replaced(text: str, pairs: tuple) -> str:
    for pattern, by in pairs:
        text = re.sub(pattern, by, text)
    return text


def leaves(value: object) -> Iterator[bytes]:
    """Tensors' bytes and other values as text, in the order of their names, which do not count themselves."""
    if isinstance(value, torch.Tensor):
        yield f"{value.dtype} {tuple(value.shape)} ".encode()
        yield value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    elif isinstance(value, dict | list | tuple):
        named = value if isinstance(value, dict) else dict(enumerate(value))
        for name in sorted((name for name in named if not clock(name)), key=str):
            yield from leaves(named[name])
    else:
        yield f"{value!r} ".encode()


def contents(path: Path) -> Iterator[str]:
    """Parts of a file that are hashed, a line each: models, features, checkpoints, pictures, events."""
    parts: dict[str, object] = {}
    if path.suffix == ".safetensors" and path.parent.name != "state":
        parts = {"tensors": load_file(path)}
    elif path.suffix == ".safetensors" and path.name != "costs.safetensors":
        tensors, notes = read_checked(path)
        parts = torch.load(io.BytesIO(tensors["state"].numpy()), weights_only=True) | {"history": notes["history"]}
    elif path.suffix == ".png" and path.name not in CLOCK_PICTURES:
        parts = {"pixels": Image.open(path).tobytes()}
    elif "tfevents" in path.name:
        events = [event for event in EventFileLoader(str(path)).Load() if event.HasField("summary")]
        parts = {f"{e.step:05d} {v.tag}": v.SerializeToString() for e in events for v in e.summary.value}
    for name, part in parts.items():
        yield f"{name} {hashlib.sha256(b''.join(leaves(part))).hexdigest()[:32]}"


def table(html: str) -> str:
    """The cells of a table in the notebook, without columns and rows of the clock."""
    tree = ElementTree.fromstring(re.search("<table.*</table>", html, re.DOTALL)[0])
    rows = [[cell.text or "" for cell in tr for _ in range(int(cell.get("colspan", 1)))] for tr in tree.iter("tr")]
    if "self_ms" in rows[0]:
        return f"{len(rows) - 1} operators, sorted by time"
    heads = rows[: len(tree.findall("thead/tr"))]
    timed = {place for row in heads for place, name in enumerate(row[::-1]) if clock(name)}  # some rows are shorter
    kept = [row for row in rows if not clock(row[0])]
    return "\n".join(" | ".join([x for i, x in enumerate(row[::-1]) if i not in timed][::-1]) for row in kept)


def printed(notebook: Path) -> str:
    """What the cells show, under the heading that each stands below."""
    lines: list[str] = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "markdown":
            lines += [line for line in "".join(cell["source"]).splitlines() if line.startswith("#")]
        elif "live" not in cell["metadata"].get("tags", []):
            text = ""
            for output in cell["outputs"]:
                data = {kind: "".join(value) for kind, value in output.get("data", {}).items()}
                html = data.get("text/html", "")
                shown = table(html) if "<table" in html else data.get("text/markdown", data.get("text/plain", ""))
                shown = "[picture]" if "image/png" in data else shown
                text += "".join(output["text"]) if "text" in output else f"{shown}\n"
            lines += ["---", *text.splitlines()]
    return replaced("\n".join(lines) + "\n", CLOCK_WORDS)


def plain(value: object) -> object:
    return {k: plain(v) for k, v in value.items() if not clock(k)} if isinstance(value, dict) else value


def record(profile: str, target: Path) -> None:
    """Run a profile as a user does, in a temporary copy, and write what came out as text files into `target`."""
    with tempfile.TemporaryDirectory() as home:
        work = Path(home).resolve() / "hw1"
        (work / "data").mkdir(parents=True)
        for name in COPIED:
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy2)(ROOT / name, work / name)
        (work / "data/cifar10").symlink_to((ROOT / "data/cifar10").resolve())  # its cache is made beside the link
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HW1_")}
        environment |= {"OMP_NUM_THREADS": "1", "HW1_OVERRIDES": json.dumps(PROFILES[profile] | {"device": "cpu"})}
        environment |= {"HW1_WEIGHTS": str(real_weights())} if profile == "quick" else {}
        command = [sys.executable, "-m", "hw1_utils", "run", "--profile", profile]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"The run of {profile} failed:\n{done.stdout}{done.stderr}")
        outputs = work / "outputs" / profile
        texts: dict[str, str] = {"notebook.txt": printed(outputs / "hw1.ipynb")}
        names, hashes = [], []
        for path in sorted(path for folder in (outputs, work / "data") for path in folder.rglob("*") if path.is_file()):
            name = path.relative_to(outputs if path.is_relative_to(outputs) else work).as_posix()
            names.append(replaced(name, NAMES))
            # Events: one line an epoch and tag, however many files hold them.
            shown = path.parent.relative_to(outputs).as_posix() if "tfevents" in name else names[-1]
            hashes += [f"{shown} {line}" for line in contents(path)]
            if path.suffix == ".csv":
                rows = pd.read_csv(path, dtype=str, keep_default_na=False)
                rows = rows[[column for column in rows if not clock(column, path.name)]]
                rows = rows.sort_values("operator") if path.name == "operators.csv" else rows  # sorted by time
                texts[name] = rows.to_csv(index=False)
            elif path.suffix == ".json" and ".cache/" not in name:
                content = plain(json.loads(path.read_text(encoding="utf-8")))
                texts[name] = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
            elif path.suffix == ".md":
                texts[name] = replaced(path.read_text(encoding="utf-8"), CLOCK_WORDS)
        texts |= {"files.txt": "\n".join(sorted(names)) + "\n", "hashes.txt": "\n".join(sorted(hashes)) + "\n"}
        for name, text in texts.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_text(text.replace(str(work), "…"), encoding="utf-8")


def real_weights() -> Path | None:
    path = ROOT / Path(os.environ.get("HW1_WEIGHTS") or "none").expanduser()  # relative ones start at the repository
    return path if path.is_file() else None


def differences(old: Path, new: Path, most: int = 12) -> list[str]:
    """What a reader wants to see of how two recordings differ, empty if they do not."""
    found: list[str] = []
    for name in sorted({path.relative_to(home) for home in (old, new) for path in home.rglob("*") if path.is_file()}):
        before, after = ((h / name).read_text("utf-8").splitlines() if (h / name).exists() else [] for h in (old, new))
        lines = [line[:300] for line in difflib.unified_diff(before, after, n=0, lineterm="")][2:]
        if lines:
            found += [f"{new.name}/{name}: {sum(not line.startswith('@@') for line in lines)} lines", *lines[:most]]
            found += [f"… and {len(lines) - most} more"] * (len(lines) > most)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--against", type=Path, help="an earlier recording")
    parser.add_argument("--only", choices=PROFILES, help="one of the two profiles")
    options = parser.parse_args()
    profiles = [options.only] if options.only else list(PROFILES)
    if "quick" in profiles and not (real_weights() and (ROOT / "data/cifar10/train").is_dir()):
        print("quick is skipped: it wants data/cifar10 (make data) and a weights file named by HW1_WEIGHTS.")
        profiles.remove("quick")
    for profile in profiles:
        if (options.folder / profile).exists():
            raise SystemExit(f"{options.folder / profile} is there already: name another folder, or remove it.")
        if options.against and not (options.against / profile).is_dir():
            raise SystemExit(f"{options.against} has no recording of {profile}.")
    with ThreadPoolExecutor() as pool:  # side by side: each run has one thread
        list(pool.map(lambda profile: record(profile, options.folder / profile), profiles))
    found = []
    for profile in profiles:
        print(f"{profile} is recorded in {options.folder / profile}")
        found += differences(options.against / profile, options.folder / profile) if options.against else []
    print("\n".join(found) or "no differences" * bool(options.against))
    sys.exit(bool(found))
