"""What the READMEs and docs/ quote of the committed run, written from the files in results/, never by hand.

Between BEGIN and END the table of results; single figures as `<!-- figure: gap -->1.7<!-- /figure -->`, see `figures`.
"""

import json
import re
from pathlib import Path

import pandas as pd

from hw1_utils.config import ROOT
from hw1_utils.errors import Hw1Error
from hw1_utils.io.files import atomic
from hw1_utils.report.words import literal

BEGIN, END = "<!-- results: python -m tools.readme -->", "<!-- /results -->"
FIGURE = re.compile(r"(<!-- figure: (\w+) -->).*?(<!-- /figure -->)")
DOCS = ("docs/your-own-images.md",)  # besides the READMEs
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
    return "\n".join(lines)


def figures(results: Path) -> dict[str, str]:
    """Single figures of the committed run, by the name under which a text may quote them."""
    quality = pd.read_csv(results / "model_metrics_comparison.csv")
    environment = json.loads((results / "environment.json").read_text(encoding="utf-8"))
    cnn, probe = (quality[quality["recipe"].str.startswith(recipe)].iloc[0] for recipe in ("tuned", "cls"))
    return {
        "cnn": f"{cnn['test_accuracy'] * 100:.1f}",  # % on test
        "gap": f"{(probe['test_accuracy'] - cnn['test_accuracy']) * 100:.1f}",  # points, probe minus CNN
        "epochs": str(cnn["epochs"]),
        "images": f"{cnn['train_images']:,}",
        "memory": f"{environment['peak_rss_mb'] / 1000:.1f}",  # GB
    }


def update(root: Path = ROOT) -> None:
    """Put the table of root/results/ between the markers of both READMEs, and single figures where they are quoted.

    Raises:
        Hw1Error: a README has lost its markers, or a text quotes a figure that is none.
    """
    known = figures(root / "results")
    for name in (*COLUMNS, *DOCS):
        text = (root / name).read_text(encoding="utf-8")
        if unknown := {figure[2] for figure in FIGURE.finditer(text)} - set(known):
            raise Hw1Error(f"{name} quotes {', '.join(sorted(unknown))}: the figures there are {', '.join(known)}.")
        text = FIGURE.sub(lambda figure: f"{figure[1]}{known[figure[2]]}{figure[3]}", text)
        if name in COLUMNS:
            if BEGIN not in text or END not in text:
                raise Hw1Error(f"{name} has lost its lines {BEGIN} and {END}: put them where the table belongs.")
            before, after = text.split(BEGIN)[0], text.split(END)[1]
            text = f"{before}{BEGIN}\n{table(root / 'results', name)}\n{END}{after}"
        with atomic(root / name) as partial:
            partial.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    update()
