"""`python -m benchmarks.training`: the CNN's training against pure compute and against the literal pipeline."""

import statistics
from dataclasses import replace

import torch
import torch.nn.functional as F

from hw1_utils.data import EVAL_BATCH, Data
from hw1_utils.experiment import cnn
from hw1_utils.io.progress import Progress
from hw1_utils.measure.costs import first_steps
from hw1_utils.models import CNN
from hw1_utils.training import evaluate, fit

from . import literal
from .common import load, own_process, rate, ratio, show, side_by_side

STEPS, TARGET, LITERAL_EPOCHS = 40, 0.67, 20


def _literal(data: Data, names: list[str]) -> tuple:
    """The literal CNN on these training images, as arguments of `own_process`."""
    config = data.context.config
    folder, mean, std = config.data_path / "train", data.mean.tolist(), data.std.tolist()
    train = literal.loader(folder, literal.cnn_transform(mean, std), config.cnn_batch_size, names=names, shuffle=True)
    judge = literal.eval_transform(mean, std, config.image_size)
    val = literal.loader(folder, judge, EVAL_BATCH, names=data.val.paths, shuffle=False)
    return literal.Experiment, literal.cnn(len(data.classes)), train, val, data.context.device


def throughput(data: Data) -> dict[str, list[float]]:
    """40 steps of each: bare network and optimiser on resident random tensors, the package's loop, the literal one.

    Returns:
        Seconds of each round: pure, package, literal.
    """
    context, run = data.context, cnn(data, "tuned")
    device, size = context.device, run.batch_size
    count = STEPS * size
    model, trained = (CNN(len(data.classes)).to(device, memory_format=torch.channels_last) for _ in range(2))
    optimizer = run.optimization(model).optimizer
    images = torch.randn(size, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, len(data.classes), (size,), device=device)

    def pure() -> None:
        for _ in range(STEPS):
            with context.precision.autocast(device):
                logits = model(images)
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=run.recipe.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    def package() -> None:
        batches = first_steps(lambda epoch: run.train.batches(size, epoch), STEPS)
        fit(trained, lambda _: batches, run.optimization(trained), epochs=1, precision=run.precision)

    with own_process(*_literal(data, data.train.paths[:count])) as call:
        work = {"pure": pure, "package": package, "literal": lambda: call("epoch")}
        seconds = side_by_side(work, device)
    rows = [
        ["pure compute, resident random tensors", rate(count, seconds["pure"]), ""],
        ["`fit`: batches, augmentation, EMA, sums", rate(count, seconds["package"]), ""],
        ["literal pipeline", rate(count, seconds["literal"]), ""],
        ["`fit` over pure compute", "", f"{ratio(seconds['pure'], seconds['package']):.2f}"],
        ["`fit` over the literal pipeline", "", f"{ratio(seconds['literal'], seconds['package']):.1f}×"],
    ]
    show(
        f"Training step, {count:,} images in batches of {size}, 5 rounds in turn",
        ["What", "Images/s: median (range)", "Ratio"],
        rows,
        data,
    )
    return seconds


def time_to_target(data: Data) -> None:
    """Seconds of training until 67 % of the validation images are right. Test is not opened for a benchmark."""
    run = replace(cnn(data, "short"), epochs=2)
    reached: list[float] = []
    fit(
        run.model,
        lambda epoch: run.train.batches(run.batch_size, epoch),
        run.optimization(run.model),
        epochs=run.epochs,
        precision=run.precision,
        validate=lambda model: evaluate(model, run.val.in_order(), run.precision),
        stop=lambda row: row["val_accuracy"] >= TARGET and not reached.append(row["elapsed_seconds"]),
        progress=Progress(run.title, run.epochs, "epochs", every=True),
    )
    seconds: list[float] = []
    with own_process(*_literal(data, data.train.paths)) as call:
        accuracy = 0.0
        while accuracy < TARGET:
            if len(seconds) == LITERAL_EPOCHS:
                raise SystemExit(f"The literal pipeline did not reach {TARGET:.0%} in {LITERAL_EPOCHS} epochs.")
            seconds.append(call("epoch"))
            accuracy = call("accuracy")
            print(f"  literal epoch {len(seconds)}: val {accuracy:.3f}, {sum(seconds):.0f} s", flush=True)
    rows = [
        ["package, recipe short, 2-epoch schedule", f"{reached[-1]:.0f}", ""],
        [f"literal pipeline ({len(seconds)} epochs of {statistics.median(seconds):.0f} s)", f"{sum(seconds):.0f}", ""],
        ["literal over package", "", f"{sum(seconds) / reached[-1]:.1f}×"],
    ]
    images = f"{len(data.val):,} validation images on {len(data.train):,} training images"
    show(f"Training to {TARGET:.0%} of {images}, one run", ["What", "Seconds", "Ratio"], rows, data)


if __name__ == "__main__":
    loaded = load()
    throughput(loaded)
    time_to_target(loaded)
