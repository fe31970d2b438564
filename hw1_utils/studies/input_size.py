"""What do a probe's accuracy, arithmetic and speed owe to the size of its encoder's input?"""

import copy
from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
import torch

from ..data import at_side
from ..experiment import Run, Trained, probe
from ..features import extract
from ..io.files import write_csv
from ..measure import profiling
from ..models import FrozenEncoder
from ..report import figures
from .common import train_only, val_columns

INPUT_SHARES = (3 / 7, 1 / 2, 5 / 7, 1)  # of the encoder's own input: 96, 112, 160 and 224 pixels of 224


def input_size(probes: list[Trained]) -> pd.DataFrame:
    """Train each probe at up to four input sizes. Writes input_size.csv and input_size.png.

    The same head on `Config.study_images` training images, judged on all of validation. The encoder sees both at each
    size: on two cores that is under three minutes for 5,000 and 5,000 images (DeiT-Tiny, bf16).

    Returns:
        One row per probe and size: model, name, input_size (side in pixels), leading, val_accuracy, the leading measure
        as val_score with its 95 % interval, macs (multiply-adds per image), extraction_images_per_second,
        train_images, val_images.
    """
    rows = []
    for run in (trained.run for trained in probes):
        for name, other in size_runs(run):
            (predictions,) = train_only(other, name=name)
            features = other.features
            rows.append(
                {
                    "model": run.title,
                    "name": run.name,
                    "input_size": max(features.encoder.input_size),
                    **val_columns(run.data, predictions),
                    "macs": profiling.count_macs(*other.from_pixels.arithmetic(features.data.train.take(slice(1)))),
                    "extraction_images_per_second": len(features.train) / features.train.seconds,
                    "train_images": len(features.train),
                    "val_images": len(features.val),
                }
            )
    table = pd.DataFrame(rows)
    folder = probes[0].run.context.config.results_path
    write_csv(folder / "input_size.csv", table)
    figures.save(figures.input_sizes(table), folder / "input_size.png")
    return table


def size_runs(run: Run) -> Iterator[tuple[str, Run]]:
    """The trainings at each input size, each with the name of its checkpoint; its features are computed for its turn.

    Args:
        run: of a probe.
    """
    data, context, sides = run.data, run.context, input_sides(run.features.encoder)
    part = run.features.subset(context.config.study_images, context.config.seed)
    val = at_side(data.val, run.image_size, context)
    pixels = sum(side**2 for side in sides) / sides[-1] ** 2  # of an image, over those of the encoder's own input
    seconds = run.features.train.seconds / len(run.features.train) * pixels * (len(part.train) + len(val))
    print(f"{run.title}: up to {seconds:,.0f} s for {len(sides)} input sizes")
    for side in sides:
        # No longer than its turn lasts does an input size keep its features.
        this = replace(context, computed={}, room=context.room.for_a_while())
        images = replace(data, context=this, train=part.train_images, val=val)
        yield f"input-{side}", probe(extract(at_input_size(run.features.encoder, side), images), run.variant)


def input_sides(encoder: FrozenEncoder) -> list[int]:
    """Sides of the input to try, in whole patches; only the encoder's own where it takes no other."""
    own = max(encoder.input_size)
    patch = encoder.backbone.patch_embed.patch_size[0] if encoder.is_vit else 16
    sides = sorted({round(own * share / patch) * patch for share in INPUT_SHARES[:-1]} - {0, own})
    black = torch.zeros(1, 3, own, own, dtype=torch.uint8, device=encoder.device)
    try:
        for side in sides:
            at_input_size(encoder, side)(black)
    except Exception as error:  # each architecture refuses in its own way
        print(f"{encoder.name} takes no other input than its own {own} pixels ({type(error).__name__})")
        sides = []
    return [*sides, own]


def at_input_size(encoder: FrozenEncoder, side: int) -> FrozenEncoder:
    """A copy of the encoder that enlarges images to side×side; a ViT's position embedding is interpolated."""
    other = copy.deepcopy(encoder)
    if other.is_vit:
        other.backbone.set_input_size(img_size=(side, side))
    other.input_size = (side, side)
    return other
