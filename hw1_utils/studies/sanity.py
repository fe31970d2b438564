"""Can each model learn three batches by heart? If not, it is wired up wrongly, or labels contradict each other."""

import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..config import Config
from ..data import Data, at_side
from ..device import Precision
from ..errors import Hw1Error, some
from ..experiment import Run, cnn, probe
from ..features import Features, SplitFeatures, check_finite, side_for
from ..io.arrays import Rows
from ..models import FrozenEncoder
from ..optim import Optimization, trainable
from ..training import Predictions, evaluate, fit

BATCHES, BATCH_SIZE = 3, 32
LEARNING_RATES = {"cnn": 3e-3, "probe": 3e-2}
NEARLY = 3.0  # levels of 255: as much as saving as JPEG again may change a picture on average
MOST = 4  # equal pictures that are named
FEW = 0.1  # of the pictures: more that are not learnt are no matter of single labels


def sanity_check(data: Data, encoders: Sequence[FrozenEncoder] = ()) -> None:
    """Let the headline CNN and each encoder's probes learn three un-augmented batches by heart; takes seconds.

    It comes before all long work, so the encoders see no other images. Pictures that lie in several classes cannot be
    learnt by any model: they are named and left out. Where a few are not learnt and near copies of them lie in other
    classes, that is said, and no reason to stop.

    Raises:
        Hw1Error: other pictures are not learnt, or most are alike; with `Config.sanity_check` "warn" it is said alone.
            Or features are not finite numbers.
    """
    if few := three_batches(data):
        for run in _runs_on(few, encoders):
            learn_by_heart(run)


def three_batches(data: Data) -> Data | None:
    """96 training images, to train and to validate on; fewer if some lie in several classes, None if most do."""
    context = data.context
    generator = torch.Generator().manual_seed(context.config.seed)
    rows = torch.randperm(len(data.train), generator=generator)[: BATCHES * BATCH_SIZE]
    chosen = data.train.subset(rows)
    copies = _in_several_classes(chosen.take(slice(None)), chosen.labels)
    alone = sorted(set(range(len(chosen))) - set(itertools.chain(*copies)))
    groups = [" and ".join(chosen.paths[row] for row in rows[:MOST]) + ", …" * (len(rows) > MOST) for rows in copies]
    if len(alone) < len(chosen) / 2:
        alike = f"{len(chosen) - len(alone)} of {len(chosen)} pictures are alike ({some(groups)})"
        return _complain(context.config, alike)
    if groups:
        print(f"WARNING: the same picture lies in several classes, so that labels are wrong: {some(groups)}.")
    few = chosen.subset(torch.tensor(alone))
    # What is computed of these images, and the room it takes, goes with them.
    return replace(data, context=replace(context, computed={}, room=context.room.for_a_while()), train=few, val=few)


def _runs_on(few: Data, encoders: Sequence[FrozenEncoder]) -> Iterator[Run]:
    """Ordinary runs, one after the other; features of so few images are not worth a place on disk."""
    yield cnn(few)
    for encoder in encoders:
        images = at_side(few.train, side_for(encoder, few), few.context)
        parts = images.take(slice(None)).split(few.context.extract_batch_size)
        values = torch.cat([encoder(part) for part in parts])
        check_finite(values, encoder)
        rows = SplitFeatures(Rows(values), seconds=0.0)
        for pooling in encoder.poolings:
            yield probe(Features(encoder, few, rows, rows, images), pooling)


def learn_by_heart(run: Run) -> list[dict]:
    """Overfit all training images of a run, in order and un-augmented, with a copy of its model.

    Returns:
        The history, as from `fit`; empty if it diverged.

    Raises:
        Hw1Error: see `sanity_check`.
    """
    train, config = run.data.train, run.context.config
    batches = list(run.train.batches(BATCH_SIZE))
    model, lr = copy.deepcopy(run.model), LEARNING_RATES[run.kind]
    try:
        history, end = overfit_check(model, batches, lr=lr, precision=run.precision)
    except Hw1Error as error:  # it diverged
        _complain(config, str(error))
        return []
    passes = f"{len(history)} pass{'es' if len(history) > 1 else ''}"
    print(f"{run.title}: {len(batches)} batches, accuracy {end.accuracy} after {passes}")
    wrong = (end.guesses != end.labels.numpy()).nonzero()[0].tolist()
    if wrong:
        named = [
            f"{train.paths[row]} (in {train.classes[end.labels[row]]}, taken for {train.classes[end.guesses[row]]})"
            for row in wrong
        ]
        complaint = (
            f"after {passes} over {len(batches)} batches {run.title} still gets {len(wrong)} of these very "
            f"images wrong: {some(named)}"
        )
        copies = _nearly_in_another_class(train.take(slice(None)), train.labels)
        if len(wrong) <= FEW * len(train) and set(wrong) <= copies:
            print(f"WARNING: {complaint}; near copies of them lie in other classes, look at the labels.")
        else:
            _complain(config, complaint)
    return history


def _complain(config: Config, what: str) -> None:
    """Stop here, or say it alone, as `Config.sanity_check` asks."""
    if config.sanity_check == "stop":
        raise Hw1Error(
            f"Sanity check: {what}; look at their labels and, if they are many, at preprocessing and learning rate, or "
            "go on with sanity_check='warn'."
        )
    print(f"WARNING: Sanity check: {what}.")


def _in_several_classes(pictures: Tensor, labels: Tensor) -> list[list[int]]:
    """Groups of rows that hold the very same uint8 picture under more than one label."""
    groups: dict[bytes, list[int]] = {}
    for row, picture in enumerate(pictures.cpu()):
        groups.setdefault(picture.numpy().tobytes(), []).append(row)
    return [rows for rows in groups.values() if len(set(labels[rows].tolist())) > 1]


def _nearly_in_another_class(pictures: Tensor, labels: Tensor) -> set[int]:
    """Rows of uint8 pictures that are there again, as good as equal, under another label."""
    pixels = pictures.flatten(1).float()
    apart = torch.cdist(pixels, pixels, p=1) / pixels.shape[1]
    apart[labels[:, None] == labels] = torch.inf
    return set((apart.min(1).values <= NEARLY).nonzero().flatten().tolist())


def overfit_check(
    model: nn.Module, batches: list[tuple[Tensor, Tensor]], *, lr: float, precision: Precision, max_epochs: int = 300
) -> tuple[list[dict], Predictions]:
    """Train on a few fixed batches until all of them are classified correctly, or `max_epochs` times.

    A network, loss and optimiser that are wired up correctly can learn three batches by heart.

    Args:
        model: trained in place: pass a copy.
        batches: about three, without augmentation.

    Returns:
        The history as from `fit`, and what the model says about the batches' samples in the end.
    """
    history = fit(
        model,
        lambda epoch: batches,
        Optimization(torch.optim.AdamW(trainable(model), lr=lr, weight_decay=0.0)),
        epochs=max_epochs,
        precision=precision,
        validate=lambda trained: evaluate(trained, batches, precision),
        stop=lambda row: row["val_accuracy"] == 1.0,
    )
    return history, evaluate(model, batches, precision)
