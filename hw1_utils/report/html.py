"""The report of a run as one HTML file, made from what lies in its results folder and from nothing else."""

import base64
import json
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import mistune
import pandas as pd
from markupsafe import Markup, escape

from ..errors import Hw1Error
from ..io.files import atomic
from ..questions import STUDIES
from .figures import colours
from .mistakes import map_in_words, mistakes_in_words
from .suspects import suspects_in_words, without_in_words
from .words import number, points, times

LISTED = 50  # suspected labels on the page; the files have all of them,
MISTAKES = 12  # and all mistakes
AGAIN = "the run that wrote it writes it anew when it is started again; what is finished is not repeated"


def write_page(results: Path, target: Path) -> Path:
    """Write the report of the run in `results` to `target`, one file that fetches nothing; returns `target`.

    Raises:
        Hw1Error: one of the two comparison CSVs is missing or an older version's, a file is damaged, or `target`
            cannot be written.
    """
    tables = [results / f"model_{what}_comparison.csv" for what in ("metrics", "profile")]
    quality, costs = map(_read, tables)
    if quality is None and costs is None:
        raise Hw1Error(f"There are no results in {results}: run `make run` first.")
    for path, table in zip(tables, (quality, costs), strict=True):
        if table is None or "name" not in table:
            found = "is missing" if table is None else "is an older version's, without a column `name`"
            raise Hw1Error(f"{path} {found}: {AGAIN}.")
    rows = quality.merge(costs, on="name", suffixes=("", "_again")).fillna({"encoder": ""})
    leading = rows["leading"].iloc[0]
    # As in the conclusion, chosen on validation: a pair picked by its test results would look better than it is.
    best_probe = rows[rows["recipe"].str.startswith("cls")].nlargest(1, "val_score")
    pair = pd.concat([rows[rows["encoder"] == ""].head(1), best_probe])
    models = rows.assign(shade=colours(rows["name"])).to_dict("records")
    for model in models:  # one without pictures has no part of its own; a folder that an earlier run left is nobody's
        model["pictured"] = (results / model["name"] / "cm.png").exists()
        model["classes"] = _shaped(results / model["name"] / "per_class.csv", partial(_by, "class"))
    settings = {name: _settings(results / f"{name}.json") for name in ("config", "environment")}
    left_out = _left_out(str(settings["config"].get("studies", "auto")))
    found = _shaped(results / "findings.csv", lambda table: table[table["turns"]]["text"].map(_html_of))

    def of_study(name: str, shape: Callable[[pd.DataFrame], Any]) -> Any:
        table = None if name in left_out else _read(results / f"{name}.csv")
        return None if table is None else shape(table)

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"html": _html, "breakable": _breakable}
    environment.globals |= {"times": times, "number": number, "points": points}
    page = environment.get_template("page.html.j2").render(
        rows=models,
        pair=pair.sort_values(f"test_{leading}", ascending=False).to_dict("records"),
        leading=f"test_{leading}",
        turning=[] if found is None else found.tolist(),
        conclusion=_html_of(_load(results / "conclusion.md", partial(Path.read_text, encoding="utf-8")) or ""),
        suspected=[] if "label_errors" in left_out else _suspected(results),
        mistaken=of_study("mistakes", lambda table: _html_of(mistakes_in_words(table, pair))),
        mapped=of_study("feature_map", lambda table: _html_of(map_in_words(table))),
        encoders=[group.to_dict("records") for name, group in rows.groupby("encoder", sort=False) if name],
        comparisons=[_by("model", table).T.rename_axis(index=None, columns="measure") for table in (quality, costs)],
        settings=settings,
        picture=lambda name: None if Path(name).stem in left_out else _load(results / name, _png),
        **{n: None if n in left_out else _shaped(results / f"{n}.csv", shape) for n, shape in SHAPES.items()},
    )
    with atomic(target) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return target


def _read(path: Path) -> pd.DataFrame | None:
    """A CSV, None where there is none. A class may be called "NA" or "007", and a version may look like a number."""
    names = ("class", "true", "predicted", "nearest", "given", "suggested", "name", "weights_sha256", "torch", "timm")
    words = dict.fromkeys(names, str)
    return _load(path, partial(pd.read_csv, keep_default_na=False, na_values=[""], dtype=words))


def _load(path: Path, read: Callable[[Path], Any]) -> Any:
    """What `read` makes of a file; None where there is none."""
    if not path.is_file():
        return None
    try:
        return read(path)
    except (ValueError, struct.error) as error:  # no rows, no columns, no JSON, no UTF-8, no header
        raise Hw1Error(f"{path} is damaged ({error}): {AGAIN}.") from error


def _shaped(path: Path, shape: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame | None:
    """The CSV in the form that is shown; None where there is none, or none with rows."""
    table = _read(path)
    return None if table is None or table.empty else shape(table)


def _text(column: pd.Series) -> pd.Series:
    """Numbers of one column in one precision, shares in per cent; words as they are."""
    if pd.api.types.is_bool_dtype(column):
        return column.map({True: "yes", False: "–"})
    if pd.api.types.is_numeric_dtype(column):
        known = column.dropna().abs()
        if any(word in column.name for word in ("accuracy", "share", "score", "coverage", "difference")):
            pattern = "{:.2%}"
        elif (known % 1 == 0).all():
            pattern = "{:,.0f}"
        else:
            tiny = known.between(0, 0.001, inclusive="neither").any()
            pattern = "{:,.1f}" if known.max() >= 100 else "{:.3g}" if tiny else "{:.3f}"
        column = column.astype(object).map(pattern.format, na_action="ignore")
    return column.astype(object).where(column.notna(), "–")


def _formatted(table: pd.DataFrame) -> pd.DataFrame:
    """The table in words; columns `x`, `x_low` and `x_high` become one."""
    shown = table.apply(_text)
    for name in [name for name in table if f"{name}_low" in table]:
        shown[name] += " (" + shown.pop(f"{name}_low") + "\u00a0to\u00a0" + shown.pop(f"{name}_high") + ")"
    return shown


def _by(head: str, table: pd.DataFrame) -> pd.DataFrame:
    """One row an entry of the column `head`; a model that is the same in all rows is left to the picture's title."""
    alone = head != "model" and "model" in table and table["model"].nunique() == 1
    hidden = [name for name in table if name == "name" or (alone and name == "model")]  # `name`: the model's folder
    shown = _formatted(table.drop(columns=hidden)).set_index(head).rename_axis(None)
    return shown.rename(columns=_plain).rename_axis(columns=_plain(head))


def _wide(table: pd.DataFrame, index: str, columns: str, values: str) -> pd.DataFrame:
    """One row an entry of `index`, one column an entry of `columns`, both in the order in which they come."""
    wide = table.pivot(index=index, columns=columns, values=values).fillna("–")
    wide = wide.reindex(index=table[index].unique(), columns=table[columns].unique())
    return wide.rename_axis(index=None, columns=_plain(index))


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _confused(table: pd.DataFrame) -> pd.DataFrame:
    shown = _formatted(table).assign(rank=table.groupby("model").cumcount() + 1)
    shown["pair"] = shown["true"] + " → " + shown["predicted"] + ": " + shown["images"] + " (" + shown["share"] + ")"
    return _wide(shown, "rank", "model", "pair")


def _differences(table: pd.DataFrame) -> pd.DataFrame:
    """`measure (model)` in two lines of headings."""
    shown = _formatted(table).set_index("class").rename_axis(None)
    pairs = [tuple(name.removesuffix(")").split(" (", 1))[::-1] for name in shown]
    return shown.set_axis(pd.MultiIndex.from_tuples(pairs, names=[None, "class"]), axis=1)


def _mistakes(table: pd.DataFrame) -> pd.DataFrame:
    """The most confident ones, with the model's folder, as its title is long."""
    columns = {
        "path": "path",
        "true": "true",
        "predicted": "said",
        "probability": "probability",
        "name": "model_folder",
    }
    return _by("path", table.head(MISTAKES)[list(columns)].rename(columns=columns))


def _milestones(table: pd.DataFrame) -> pd.DataFrame:
    when = table["epochs"].map("epoch\u00a0{:.0f}, ".format) + table["seconds"].map("{:,.0f}\u00a0s".format)
    goal = table["val_accuracy"].map("{:.0%}".format)
    return _wide(table.assign(goal=goal, when=when.where(table["epochs"].notna(), "never")), "model", "goal", "when")


def _coverage(table: pd.DataFrame) -> pd.DataFrame:
    """With shares as headings: the surest 10%, 20%, ..."""
    return _formatted(table).assign(coverage=table["coverage"].map("{:.0%}".format))


def _seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation of the measure that leads, under its name."""
    leading = table["leading"].iloc[0]
    of = {f"{part}_{leading}_{how}": (f"{part}_score", how) for part in ("val", "test") for how in ("mean", "std")}
    return _by("model", table.groupby("model", sort=False).agg(seeds=("seed", "count"), **of).reset_index())


def _left_out(studies: str) -> set[str]:
    """Files, without their suffix, of the studies that a run did not make: an earlier one's may lie there."""
    made = {name.strip() for name in studies.split(",")}
    if made & {"all", "auto"}:
        return set()
    return {file for study, files in STUDIES.items() if study not in made for file in files}


SHAPES = {
    "differences": _differences,
    "confused_pairs": _confused,
    "mistakes": _mistakes,
    "baselines": partial(_by, "model"),
    "calibration": partial(_by, "model"),
    "coverage": partial(_by, "model"),
    "accuracy_by_coverage": lambda table: _wide(_coverage(table), "model", "coverage", "test_accuracy"),
    "learning_curve": lambda table: _wide(_formatted(table), "train_images", "model", "val_score"),
    "input_size": partial(_by, "input_size"),
    "penalty": partial(_by, "strength"),
    "seeds": _seeds,
    "flip_averaging": partial(_by, "model"),
    "milestones": _milestones,
    "without_twins": partial(_by, "model"),
    "label_errors": lambda table: _by("rank", table.head(LISTED)),
    "label_error_shares": partial(_by, "part"),
    "without_suspects": partial(_by, "left_out"),
}


def _settings(path: Path) -> dict[str, object]:
    """A JSON object, flat; empty where there is none."""
    value = _load(path, lambda path: json.loads(path.read_text(encoding="utf-8")))
    return pd.json_normalize(value).iloc[0].to_dict() if value else {}


def _suspected(results: Path) -> list[str]:
    """What the study of label errors says, in paragraphs; none where it was not made."""
    told = {"label_error_shares": suspects_in_words, "without_suspects": without_in_words}
    tables = {name: _shaped(results / f"{name}.csv", lambda table: table) for name in told}
    return [told[name](table) for name, table in tables.items() if table is not None]


class _Renderer(mistune.HTMLRenderer):
    def heading(self, text: str, level: int, **attrs: object) -> str:
        return super().heading(text, level + 1, **attrs)  # below the section's own


def _html_of(text: str) -> Markup:
    """Markdown as HTML."""
    return Markup(mistune.create_markdown(renderer=_Renderer(escape=True))(text))


def _png(path: Path) -> dict:
    """A picture as the page holds it, and its size."""
    data = path.read_bytes()
    width, height = struct.unpack(">II", data[16:24])  # Pillow refuses the confusion matrix of 230 classes
    return {"source": f"data:image/png;base64,{base64.b64encode(data).decode()}", "width": width, "height": height}


def _html(table: pd.DataFrame) -> Markup:
    with pd.option_context("display.max_colwidth", None):  # else long words are cut
        return _breakable(Markup(table.to_html(border=0).replace(' halign="left"', "")))  # not in HTML 5


def _breakable(text: str) -> Markup:
    """Escaped, and free to break after underscores: names of encoders are long."""
    return escape(text).replace("_", Markup("_<wbr>"))
