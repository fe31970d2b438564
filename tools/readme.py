"""What READMEs, docs/ and notebook quote of the committed run, written from the files in results/, never by hand.

Between BEGIN and END the table of results, in the notebook the answer to its question; single figures as
`<!-- figure: gap -->1.7<!-- /figure -->`, see `figures`.
"""

import json
import re
from pathlib import Path

import nbformat
import pandas as pd

from hw1_utils.config import ROOT
from hw1_utils.errors import Hw1Error
from hw1_utils.io.files import atomic
from hw1_utils.report.words import literal, points
from tools.carry import carry

BEGIN, END = "<!-- results: python -m tools.readme -->", "<!-- /results -->"
FIGURE = re.compile(r"(<!-- figure: (\w+) -->).*?(<!-- /figure -->)")
CLAIM = re.compile(r"(# result of (\w+):).*")  # above the entries of `optim.RECIPES`
DOCS = ("docs/your-own-images.md",)  # besides the READMEs
NOTEBOOK = "hw1.ipynb"
COLUMNS = {
    "README.md": (
        "Model",
        "Test accuracy (95 % interval)",
        "Macro F1 (95 % interval)",
        "Parameters (trained)",
        "Multiply-adds per image",
        "Training, features included",
        "Inference",
    ),
    "README.ru.md": (
        "Модель",
        "Точность на тесте (95 % интервал)",
        "Макро-F1 (95 % интервал)",
        "Параметры (обучаемые)",
        "Умножений-сложений на картинку",
        "Обучение вместе с признаками",
        "Вывод",
    ),
}
UNITS = {"README.md": ("s", "images/s"), "README.ru.md": ("с", "картинок/с")}


def table(results: Path, language: str) -> str:
    """Markdown table of the committed run; `language` is the file it is for, README.md or README.ru.md."""
    quality = pd.read_csv(results / "model_metrics_comparison.csv")
    costs = pd.read_csv(results / "model_profile_comparison.csv")
    seconds, rate = UNITS[language]
    lines = ["| " + " | ".join(COLUMNS[language]) + " |", "|---" * len(COLUMNS[language]) + "|"]
    for (_, q), (_, c) in zip(quality.iterrows(), costs.iterrows(), strict=True):
        cells = (
            literal(q["model"]),
            f"{q['test_accuracy']:.2%} ({q['test_accuracy_low']:.2%} – {q['test_accuracy_high']:.2%})",
            f"{q['test_macro_f1']:.4f} ({q['test_macro_f1_low']:.4f} – {q['test_macro_f1_high']:.4f})",
            f"{c['parameters']:,} ({c['trainable_parameters']:,})",
            f"{c['macs'] / 1e6:,.1f} M",
            f"{c['total_training_seconds']:,.0f} {seconds}",
            f"{c['inference_images_per_second']:,.0f} {rate}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    first = quality.iloc[0]
    split = f"train/val/test {first['train_images']:,}/{first['val_images']:,}/{first['test_images']:,}"
    place = f"{literal(first['device'])}, {first['threads']} threads, {first['precision']}"
    lines += ["", f"`{split}`, seed {first['seed']}, {place}, torch {first['torch']}, timm {first['timm']}."]
    for _, row in quality.dropna(subset="encoder").drop_duplicates("encoder").iterrows():
        lines[-1] += f" `{row['encoder']}`: SHA256 of the weights {row['weights_sha256'][:12]}."
    return "\n".join(lines)


def claims(results: Path) -> dict[str, str]:
    """What each recipe of a CNN, and each pooling of a probe, has reached in the committed run, in a line."""
    quality = pd.read_csv(results / "model_metrics_comparison.csv")
    costs = pd.read_csv(results / "model_profile_comparison.csv")
    return {
        q["recipe"].split(",")[0]: (
            f"{q['epochs']} epochs, {q['test_accuracy'] * 100:.1f} % "
            f"({q['test_accuracy_low'] * 100:.1f}–{q['test_accuracy_high'] * 100:.1f}) on test, "
            f"{c['total_training_seconds']:,.0f} s on {q['threads']} threads of {q['device']}, {q['precision']}"
        )
        for (_, q), (_, c) in zip(quality.iterrows(), costs.iterrows(), strict=True)
    }


def update_recipes(root: Path = ROOT) -> None:
    """Put what root/results/ says of each recipe above its entry in `optim.RECIPES`."""
    path, known = root / "hw1_utils/optim.py", claims(root / "results")
    text = path.read_text(encoding="utf-8")
    text = CLAIM.sub(lambda claim: f"{claim[1]} {known.get(claim[2], 'not in results/')}", text)
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


def figures(results: Path) -> dict[str, str]:
    """Single figures of the committed run, by the name under which a text may quote them."""
    quality = pd.read_csv(results / "model_metrics_comparison.csv")
    costs = pd.read_csv(results / "model_profile_comparison.csv").set_index("name").to_dict("index")
    environment = json.loads((results / "environment.json").read_text(encoding="utf-8"))
    cnn, probe = (quality[quality["recipe"].str.startswith(recipe)].iloc[0] for recipe in ("tuned", "cls"))
    return {
        "cnn": f"{cnn['test_accuracy'] * 100:.1f}",  # % on test
        "gap": points(probe["test_accuracy"] - cnn["test_accuracy"]),  # probe minus CNN
        "epochs": str(cnn["epochs"]),
        "cnn_minutes": f"{costs[cnn['name']]['training_seconds'] / 60:.0f}",
        "feature_minutes": f"{costs[probe['name']]['extraction_seconds'] / 60:.0f}",
        "images": f"{cnn['train_images']:,}",
        "memory": f"{environment['peak_rss_mb'] / 1000:.1f}",  # GB
    }


def answer(results: Path) -> str:
    """Markdown for the head of the notebook: the two models compared, the best others on validation, the conclusion."""
    quality = pd.read_csv(results / "model_metrics_comparison.csv")
    costs = pd.read_csv(results / "model_profile_comparison.csv").set_index("name")
    is_cnn = quality["encoder"].isna()
    plain = quality[quality["recipe"].str.startswith("cls")]
    compared = [quality[is_cnn].index[0], plain["val_score"].idxmax()]
    others = [quality[kind].drop(compared, errors="ignore") for kind in (is_cnn, ~is_cnn)]
    best = [rows["val_score"].idxmax() for rows in others if len(rows)]
    heads = ("Model", "Test accuracy (95 % interval)", "Multiply-adds per image", "Training", "Inference")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in compared + best:
        q, c = quality.loc[row], costs.loc[quality.loc[row, "name"]]
        cells = (
            f"**{literal(q['model'])}**" if row in compared else literal(q["model"]),
            f"{q['test_accuracy']:.1%} ({q['test_accuracy_low']:.1%} – {q['test_accuracy_high']:.1%})",
            f"{c['macs'] / 1e6:,.1f} M",
            f"{c['total_training_seconds']:,.0f} s",
            f"{c['inference_images_per_second']:,.0f} images/s",
        )
        lines.append("| " + " | ".join(cells) + " |")
    text = (results / "conclusion.md").read_text(encoding="utf-8")
    said = next(part for part in text.split("\n\n") if part.startswith("**Conclusion.**"))
    first = quality.iloc[0]
    place = f"{literal(first['device'])}, {first['threads']} threads, {first['precision']}"
    images = f"{first['train_images']:,} training and {first['test_images']:,} test images"
    return "\n".join([*lines, "", f"({images}; {place}. Training includes computing the features.)", "", said.strip()])


def update(root: Path = ROOT) -> None:
    """Put what is in root/results/ between the markers of READMEs and notebook, and single figures where they stand.

    Raises:
        Hw1Error: a file has lost its markers, or a text quotes a figure that is none.
    """
    results = root / "results"
    known = figures(results)

    def renewed(text: str, name: str) -> str:
        if unknown := {figure[2] for figure in FIGURE.finditer(text)} - set(known):
            raise Hw1Error(f"{name} quotes {', '.join(sorted(unknown))}: the figures there are {', '.join(known)}.")
        return FIGURE.sub(lambda figure: f"{figure[1]}{known[figure[2]]}{figure[3]}", text)

    def filled(text: str, name: str, content: str) -> str:
        if BEGIN not in text or END not in text:
            raise Hw1Error(f"{name} has lost its lines {BEGIN} and {END}: put them where the results belong.")
        return f"{text.split(BEGIN)[0]}{BEGIN}\n{content}\n{END}{text.split(END)[1]}"

    for name in (*COLUMNS, *DOCS):
        text = renewed((root / name).read_text(encoding="utf-8"), name)
        if name in COLUMNS:
            text = filled(text, name, table(results, name))
        with atomic(root / name) as partial:
            partial.write_text(text, encoding="utf-8")
    document = nbformat.read(root / NOTEBOOK, as_version=4)
    for cell in (cell for cell in document.cells if cell.cell_type == "markdown"):
        cell.source = renewed(cell.source, NOTEBOOK)
    document.cells[0].source = filled(document.cells[0].source, NOTEBOOK, answer(results))
    with atomic(root / NOTEBOOK) as partial:
        nbformat.write(document, partial)


if __name__ == "__main__":
    update()
    update_recipes()
    carry()  # a recipe's line in optim.py may have changed
