"""`python -m hw1_utils run|data|stamp|readme`: the notebook headless, the data alone, two chores of the repository."""

import argparse
import json
import os
import sys
import typing

from .config import PATHS, ROOT, Config, make_config
from .files import Hw1Error


def run(args: argparse.Namespace) -> None:
    """Execute the notebook and say what came out and where it is."""
    import pandas as pd

    from .notebook import NOTEBOOK, execute

    config = make_config(args.profile, **args.settings)  # bad settings are found here, before a kernel starts
    os.environ["HW1_PROFILE"] = config.profile
    os.environ["HW1_OVERRIDES"] = json.dumps(args.settings)
    # Only a run that writes the repository's own results/ is what its notebook shows.
    own = config.output_path.resolve() == ROOT
    outputs = ROOT / "outputs" / config.profile if own else config.output_path
    executed = NOTEBOOK if own else outputs / "hw1.ipynb"
    execute(executed, outputs / "report.html", echo=lambda text: print(text, flush=True))
    table = pd.read_csv(config.results_path / "model_metrics_comparison.csv")
    columns = ["model", "test_accuracy", "test_accuracy_low", "test_accuracy_high", "test_macro_f1"]
    costs = pd.read_csv(config.results_path / "model_profile_comparison.csv")
    table = table[columns].join(costs[["total_training_seconds", "inference_images_per_second"]])
    print(f"\n{table.to_string(index=False, float_format=lambda value: f'{value:.4g}')}\n")
    places = {
        "executed notebook": executed,
        "HTML report": outputs / "report.html",
        "tables and figures": config.results_path,
        "TensorBoard logs and traces": config.runs_path,
    }
    for what, where in places.items():
        print(f"{what + ':':<28} {os.path.relpath(where)}")


def data(args: argparse.Namespace) -> None:
    """Build or check the data folder."""
    from .experiment import prepare

    prepare(make_config(args.profile, **args.settings))


def stamp(args: argparse.Namespace) -> None:
    """Write the repository's address into badge and setup cell."""
    from .notebook import stamp as write

    write(args.repo)
    print("Stamped hw1.ipynb, README.md and README.ru.md.")


def readme(args: argparse.Namespace) -> None:
    """Write the results tables of both READMEs from results/*.csv."""
    from .readme import update

    update()


def read_settings(words: list[str]) -> dict:
    """`--cnn-epochs 5 --fresh --data photos` as fields of Config: {"cnn_epochs": 5, "fresh": True, "data_dir": …}.

    A name without a value is True; `none` is None; relative paths start where the command was given.

    Raises:
        ValueError: a word that belongs to no name.
    """
    settings, hints, words = {}, typing.get_type_hints(Config), list(words)
    while words:
        if not (word := words.pop(0)).startswith("--"):
            raise ValueError(f"{word!r} belongs to no setting")
        name = word[2:].replace("-", "_")
        name = {"data": "data_dir"}.get(name, name)
        value = words.pop(0) if words and not words[0].startswith("--") else "true"
        if name in PATHS and value not in ("random", "none"):
            value = os.path.abspath(os.path.expanduser(value))
        settings[name] = _value(value, typing.get_args(hints.get(name)) or (hints.get(name),))
    return settings


def _value(text: str, kinds: tuple) -> object:
    """Text as one of these types where it can be read so; what does not fit is refused by Config, in its words."""
    if text.lower() == "none" and type(None) in kinds:
        return None
    try:
        return text if str in kinds else json.loads(text.lower())
    except ValueError:
        return text


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 an error said in one sentence, 2 a wrong command line, 130 Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m hw1_utils",
        description=__doc__,
        epilog="run and data take every field of Config (hw1_utils/config.py) as an option: --cnn-epochs 5",
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    for command, text in ((run, "execute hw1.ipynb headless"), (data, "build or check the data")):
        sub = commands.add_parser(command.__name__, help=text)
        sub.add_argument("--profile", default="auto", help="auto, full, quick or smoke (default: HW1_PROFILE or auto)")
        sub.set_defaults(command=command)
    sub = commands.add_parser("stamp", help="write the repository's address into the Colab badge and the setup cell")
    sub.add_argument("--repo", required=True, help="https://github.com/OWNER/NAME")
    sub.set_defaults(command=stamp)
    sub = commands.add_parser("readme", help="write the READMEs' results tables from results/")
    sub.set_defaults(command=readme)
    args, rest = parser.parse_known_args(argv)
    try:
        args.settings = read_settings(rest)
    except ValueError as error:
        parser.error(str(error))
    if args.settings and args.command not in (run, data):
        parser.error(f"{args.command.__name__} takes no settings")
    try:
        args.command(args)
    except Hw1Error as error:
        print(f"hw1: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nhw1: stopped; the same command continues after the last finished epoch.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
