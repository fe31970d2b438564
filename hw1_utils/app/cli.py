"""Should you train a small CNN from scratch, or put a linear head on a frozen, pretrained ViT? On your images:

python -m hw1_utils run                           CIFAR-10, the whole story: trains, compares, writes a report
python -m hw1_utils run --data photos             your own: photos/<class>/*, or photos/train/… and photos/test/…
python -m hw1_utils run --encoder A --encoder B   other timm encoders, side by side
python -m hw1_utils run --cnn-epochs 5            any setting is an option: `run --help` lists them
torchrun --nproc-per-node=2 -m hw1_utils work     ahead of a run: decodes, extracts and trains, several at a time
python -m hw1_utils predict models/vit.safetensors new.jpg folder/    class and probability
python -m hw1_utils export models/cnn.safetensors                     the same model as ONNX
python -m hw1_utils report                        comparison and HTML report again, from what is on disk
"""

import argparse
import io
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import Field, asdict, fields
from functools import partial
from pathlib import Path

from ..config import PROFILES, ROOT, Config, make_config, overrides_from_environment, read_setting
from ..errors import Hw1Error


def run(args: argparse.Namespace) -> None:
    """Execute the notebook and say what came out and where it is."""
    from ..io.tracking import clear_emptied
    from .runner import NOTEBOOK, execute

    config = _with_the_notebooks(args)  # bad settings are found here, before a kernel starts
    os.environ["HW1_PROFILE"] = config.profile
    os.environ["HW1_OVERRIDES"] = json.dumps(overrides_from_environment() | args.settings)
    # Only a run that writes the repository's own results/ is what its notebook shows.
    executed = NOTEBOOK if _is_own(config) else config.output_path / "hw1.ipynb"
    execute(executed, echo=lambda text: print(text, flush=True))
    clear_emptied(config.runs_path, patience_s=0)  # kernel and TensorBoard servers have ended: nobody reads them now
    report(args)
    print(f"{'executed notebook:':<28} {os.path.relpath(executed)}")


def work(args: argparse.Namespace) -> None:
    """Decode, extract and train what a run of these settings will, ahead of it and, under torchrun, several at a time.

    The processes that torchrun starts, on one machine or on several with the same folder, share it out; each takes one
    of its machine's GPUs. The run then finds everything and is left with what must be measured, chosen and said.
    """
    from ..io.ranks import take_one_gpu
    from .work import work_ahead

    take_one_gpu()
    work_ahead(_with_the_notebooks(args))


def _with_the_notebooks(args: argparse.Namespace) -> Config:
    """The settings of a run: the notebook's own win, and go into `args`."""
    from .runner import NOTEBOOK, own_settings

    own, given = own_settings(NOTEBOOK), dict(args.settings)
    if args.profile != "auto":
        given["profile"] = args.profile
    for name, value in own.items():  # in the kernel it wins, so it counts here as well
        if given.get(name, value) != value:
            raise Hw1Error(
                f"{NOTEBOOK.name} itself sets {name} to {value!r}, the command line to {given[name]!r}: take one "
                "of the two away."
            )
    args.profile, args.settings = own.pop("profile", args.profile), args.settings | own
    config = make_config(args.profile, **args.settings)
    args.again = "starts over, as fresh asks" if config.fresh else "continues after the last finished epoch"
    return config


def report(args: argparse.Namespace) -> None:
    """Write the HTML report of a finished run and say what came out and where it is."""
    import pandas as pd

    from ..report.html import write_page

    config = make_config(args.profile, **args.settings)
    folder = ROOT / "outputs" / config.profile if _is_own(config) else config.output_path
    page = write_page(config.results_path, folder / "report.html")
    quality = pd.read_csv(config.results_path / "model_metrics_comparison.csv")
    costs = pd.read_csv(config.results_path / "model_profile_comparison.csv")
    leading = quality["leading"][0] if "leading" in quality else "accuracy"
    columns = ["model", *(f"test_{leading}{end}" for end in ("", "_low", "_high")), "test_macro_f1"]
    table = quality[columns].join(costs[["total_training_seconds", "inference_images_per_second"]])
    places = {
        "HTML report": page,
        "tables and figures": config.results_path,
        "models, to predict with": config.models_path,
        "TensorBoard logs and traces": config.runs_path,
    }
    if args.json:
        shown = {"leading": leading, "models": table.to_dict("records")}
        print(json.dumps(shown | {"places": {what: str(where) for what, where in places.items()}}, indent=2))
        return
    print(f"\n{table.to_string(index=False, float_format=lambda value: f'{value:.4g}')}\n")
    for what, where in places.items():
        print(f"{what + ':':<28} {os.path.relpath(where)}")


def _is_own(config: Config) -> bool:
    """Whether a run writes the repository's own runs/ and results/."""
    return config.output_path.resolve() == ROOT


def data(args: argparse.Namespace) -> None:
    """Build or check the data folder."""
    from ..experiment import load

    load(make_config(args.profile, **args.settings))


def predict(args: argparse.Namespace) -> None:
    """Classify images; files that are left out or cannot be read are named at the end, with exit code 1.

    With --output there may be any number of them: the CSV has a row for each, also for what cannot be read, the same
    command goes on after whatever end, and torchrun shares the work out.
    """
    from ..deploy.saved import find_images, load_model
    from ..deploy.saved import predict as classify
    from ..deploy.unsure import promise
    from ..device import find_device

    if args.output:
        _predict_to_csv(args)
        return
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise Hw1Error("Several processes share the files out only with --output FILE: give that, or start one.")
    say, target = partial(print, file=sys.stderr), args.target_accuracy  # the table alone goes to stdout
    model = load_model(Path(args.model), find_device())
    kept = None if target is None else promise(model, target)
    files, left_out, empty = find_images(args.images)
    table = classify(model, files, say=say, target_accuracy=target)
    read = table[table["error"].isna()]
    if kept:
        say(f"{kept} Here: {read['unsure'].sum():,} of {len(read):,} unsure.")
    if args.json:
        rows = [
            {key: value for key, value in row.items() if value is not None and value == value}
            for row in table.to_dict("records")
        ]
        shown = {"model": model.title, "classes": model.classes} | ({"promise": asdict(kept)} if kept else {})
        print(json.dumps(shown | {"images": rows}, indent=2))
    elif len(read):
        columns = ["path", "prediction", "probability"]
        if kept:
            columns, read = [*columns, "unsure"], read.assign(unsure=read["unsure"].map({True: "unsure", False: ""}))
        print(read[columns].to_string(index=False, float_format=lambda p: f"{p:.3f}"))
    problems, unread = [], table[table["error"].notna()]
    if len(unread):
        named = ", ".join(f"{path} ({why})" for path, why in zip(unread["path"], unread["error"], strict=True))
        problems.append(f"{len(unread)} of {len(table)} files cannot be read as images: {named}")
    if left_out:
        problems.append(f"left out, by name no image: {', '.join(left_out)}")
    if empty:
        problems.append(f"no image in {', '.join(empty)}")
    if problems:
        raise Hw1Error("; ".join(problems) + ".")


def _predict_to_csv(args: argparse.Namespace) -> None:
    from ..deploy.bulk import predict_to_csv
    from ..deploy.saved import load_model
    from ..deploy.unsure import promise
    from ..device import find_device
    from ..io.ranks import ranks, take_one_gpu

    if args.json:
        raise Hw1Error("--json is for the terminal, --output for a CSV: take one of the two away.")
    args.again = "continues with the parts that are missing"
    with ranks() as shared:
        take_one_gpu()
        source, target = Path(args.model), args.target_accuracy
        model = load_model(source, find_device())
        if target is not None and shared.is_first:
            print(promise(model, target))
        predict_to_csv(model, source, args.images, Path(args.output), shared, target_accuracy=target)


def export(args: argparse.Namespace) -> None:
    """Write a saved model as ONNX and say how far ONNX Runtime and PyTorch agree."""
    import torch

    from ..deploy.export import export_onnx
    from ..deploy.saved import load_model

    source = Path(args.model)
    target = Path(args.output or source.with_suffix(".onnx"))
    if target.suffix.lower() != ".onnx" or os.path.isdir(target) or target.resolve() == source.resolve():
        raise Hw1Error(f"The ONNX file cannot be {target}: name a file, not the model's own, that ends in .onnx.")
    done = export_onnx(load_model(source, torch.device("cpu")), target)
    print(
        f"{done.path}: ONNX Runtime and PyTorch agree on {done.same} of {done.images} test pictures, "
        f"probabilities within {done.difference:.1g}"
    )


class _Help(argparse.RawDescriptionHelpFormatter):
    """With room for the longest option; the value that a setting may do without is shown as N, not [N]."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        return action.metavar if action.nargs == "?" else super()._format_args(action, default_metavar)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line understood: `command`, what it takes, and of `settings`, the fields of Config, those given.

    The value of a setting that has none is True. Names that Config does not have are among them: it refuses them and
    says the nearest. Exits with code 2 where a word belongs to nothing, or a setting is there twice.
    """
    strict = {"allow_abbrev": False, "formatter_class": _Help}
    parser = argparse.ArgumentParser(prog="python -m hw1_utils", description=__doc__, **strict)
    commands = parser.add_subparsers(required=True, metavar="command")
    settings = argparse.ArgumentParser(add_help=False)
    group = settings.add_argument_group("settings", "what is given wins over the profile and the environment")
    for setting in fields(Config):
        _add_option(group, setting)

    def add(command: Callable, text: str, **options: object) -> argparse.ArgumentParser:
        sub = commands.add_parser(command.__name__, help=text, description=command.__doc__, **strict, **options)
        sub.set_defaults(command=command, json=False, again="")
        return sub

    with_settings = {
        run: "execute hw1.ipynb headless",
        work: "ahead of a run, under torchrun in parallel: all it computes",
    }
    with_settings[data] = "build or check the data"
    with_settings[report] = "comparison and HTML report of a finished run"
    for command, text in with_settings.items():
        sub = add(command, text, parents=[settings], usage="%(prog)s [--SETTING VALUE ...]")
    sub.add_argument("--json", action="store_true", help="for programs")
    sub = add(predict, "classify images with a model of a finished run")
    sub.add_argument("model", help="models/<name>.safetensors in the run's output folder")
    sub.add_argument("images", nargs="+", help="files, or folders of any depth")
    share = "of the answers, as 0.95: what the model is not sure enough of is marked unsure"
    sub.add_argument("--target-accuracy", type=float, metavar="X", help=share)
    sub.add_argument("--json", action="store_true", help="for programs: with the probability of each class")
    sub.add_argument(
        "--output", metavar="FILE", help="a CSV, with the probability of each class; for millions of files"
    )
    sub = add(export, "write a model as ONNX")
    sub.add_argument("model", help="models/<name>.safetensors in the run's output folder")
    sub.add_argument("--output", metavar="FILE", help="default: beside the model")

    args, rest = parser.parse_known_args(_in_argparses_terms(words))
    unknown = [word[2:].partition("=")[0].replace("-", "_") for word in rest if word.startswith("--")]
    if rest and not (unknown and args.command in with_settings):
        parser.error(f"{args.command.__name__} does not take {' '.join(rest)}")
    args.settings = dict.fromkeys(unknown, True)
    for name in (setting.name for setting in fields(Config)):
        values = [value for value in getattr(args, name, ()) if value != ""]
        if len(values) > 1 and name != "encoder":
            parser.error(f"--{name.replace('_', '-')} is there twice")
        if values:
            args.settings[name] = ",".join(values) if len(values) > 1 and True not in values else values[-1]
    args.profile = args.settings.pop("profile", "auto")
    return args


def _add_option(group: argparse._ArgumentGroup, setting: Field) -> None:
    """Add a field of Config, with its help, what it may be, and what it is where nothing is given."""
    name, about = setting.name, setting.metadata
    options, facts = [f"--{name.replace('_', '-')}"], []
    if about["env"]:
        options.append(f"--{about['env'].removeprefix('HW1_').lower()}")
        facts.append(about["env"])
    if about["choices"] and not about["path"]:
        facts.append(", ".join(about["choices"]))
    if about["low"] is not None:
        facts.append(f"at least {about['low']}" if about["high"] is None else f"{about['low']} to {about['high']}")
    defaults = ["HW1_PROFILE or auto" if name == "profile" else str(setting.default).lower()]
    defaults += [f"{profile} {PROFILES[profile][name]}" for profile in ("quick", "smoke") if name in PROFILES[profile]]
    metavar = {int: "N", int | None: "N", float: "X", bool: ""}.get(setting.type, "NAME")
    group.add_argument(
        *dict.fromkeys(options),
        dest=name,
        type=partial(_read, setting),
        action="append",
        nargs="?",
        const=True,
        default=argparse.SUPPRESS,
        metavar="PATH" if about["path"] else metavar,
        help=f"{about['help']} ({'; '.join([*facts, 'default ' + ', '.join(defaults)])})",
    )


def _read(setting: Field, text: str) -> object:
    """The text as a field's value. Relative paths start where the command was given; ~ is Config's to read."""
    value, about = read_setting(setting.name, text), setting.metadata
    if about["path"] and value and value not in about["choices"] and not value.startswith("~"):
        return os.path.abspath(value)
    return value


def _in_argparses_terms(words: Sequence[str]) -> list[str]:
    """`--probe_lr -1e-3` as `--probe-lr=-1e-3`: argparse takes what begins with a dash for an option, but for -1."""
    end = words.index("--") if "--" in words else len(words)
    done: list[str] = []
    for word in words[:end]:
        if word.startswith("--"):
            name, *value = word.split("=", 1)
            done.append("=".join([name.replace("_", "-"), *value]))
        elif word.startswith("-") and word != "-h" and done and re.fullmatch("--[^=]+", done[-1]):
            done[-1] += f"={word}"
        else:
            done.append(word)
    return [*done, *words[end:]]


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 an error said in one sentence, 2 a wrong command line, 130 Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may have what the terminal's encoding lacks
    args = parse(sys.argv[1:] if argv is None else argv)
    try:
        args.command(args)
    except Hw1Error as error:
        print(f"hw1: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # of the system, where nobody has thought of it
        place = f"{error.filename}: " if error.filename else ""
        print(f"hw1: {Hw1Error(f'{place}{error.strerror or error}.')}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        then = f"; the same command {args.again}" if args.again else ""
        print(f"\nhw1: stopped{then}.", file=sys.stderr)
        return 130
    return 0
