"""`python -m benchmarks.training`: the CNN's training against pure compute and against the literal pipeline."""

import statistics

import torch
import torch.nn.functional as F

from hw1_utils.models import CNN
from hw1_utils.preparation import Setup
from hw1_utils.tasks import EVAL_BATCH, CNNTask
from hw1_utils.training import evaluate, first_steps, fit

from . import literal
from .common import load, own_process, rate, ratio, show, side_by_side

STEPS, TARGET, LITERAL_EPOCHS = 40, 0.67, 20


def _literal(setup: Setup, names: list[str]) -> tuple:
    """The literal CNN on these training images, as arguments of `own_process`."""
    folder, mean, std = setup.config.data_path / "train", setup.mean.tolist(), setup.std.tolist()
    size = setup.config.cnn_batch_size
    train = literal.loader(folder, literal.cnn_transform(mean, std), size, names=names, shuffle=True)
    judge = literal.eval_transform(mean, std, setup.config.image_size)
    val = literal.loader(folder, judge, EVAL_BATCH, names=setup.val.paths, shuffle=False)
    return literal.Experiment, literal.cnn(len(setup.classes)), train, val, setup.device


def throughput(setup) -> None:
    """40 steps of each: bare network and optimiser on resident random tensors, the package's loop, the literal one."""
    task = CNNTask(setup, "tuned")
    count = STEPS * task.batch_size
    model = CNN(len(setup.classes)).to(setup.device, memory_format=torch.channels_last)
    bare = task.recipe(model)
    images = torch.randn(task.batch_size, 3, 32, 32, device=setup.device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, len(setup.classes), (task.batch_size,), device=setup.device)

    def pure() -> None:
        for _ in range(STEPS):
            with setup.precision.autocast(setup.device):
                logits = model(images)
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=task.label_smoothing)
            bare["optimizer"].zero_grad(set_to_none=True)
            loss.backward()
            bare["optimizer"].step()

    def package() -> None:
        fit(
            task.model,
            lambda _: first_steps(task.image_batches, STEPS),
            epochs=1,
            precision=setup.precision,
            **task.recipe(task.model),
        )

    with own_process(*_literal(setup, setup.train.paths[:count])) as call:
        work = {"pure": pure, "package": package, "literal": lambda: call("epoch")}
        seconds = side_by_side(work, setup.device)
    rows = [
        ["pure compute, resident random tensors", rate(count, seconds["pure"]), ""],
        ["`fit`: batches, augmentation, EMA, sums", rate(count, seconds["package"]), ""],
        ["literal pipeline", rate(count, seconds["literal"]), ""],
        ["`fit` over pure compute", "", f"{ratio(seconds['pure'], seconds['package']):.2f}"],
        ["`fit` over the literal pipeline", "", f"{ratio(seconds['literal'], seconds['package']):.1f}×"],
    ]
    show(
        f"Training step, {count:,} images in batches of {task.batch_size}, 5 rounds in turn",
        ["What", "Images/s: median (range)", "Ratio"],
        rows,
        setup,
    )


def time_to_target(setup) -> None:
    """Seconds of training until 67 % of the validation images are right. Test is not opened for a benchmark."""
    val = setup.val
    quick = CNNTask(setup, "tuned")
    quick.epochs = 4
    reached: list[float] = []
    fit(
        quick.model,
        quick.train_batches,
        epochs=quick.epochs,
        precision=setup.precision,
        validate=lambda model: evaluate(model, quick.eval_batches(val), setup.precision),
        stop=lambda row: row["val_accuracy"] >= TARGET and not reached.append(row["elapsed_seconds"]),
        say=print,
        **quick.recipe(quick.model),
    )
    seconds: list[float] = []
    with own_process(*_literal(setup, setup.train.paths)) as call:
        accuracy = 0.0
        while accuracy < TARGET:
            if len(seconds) == LITERAL_EPOCHS:
                raise SystemExit(f"The literal pipeline did not reach {TARGET:.0%} in {LITERAL_EPOCHS} epochs.")
            seconds.append(call("epoch"))
            accuracy = call("accuracy")
            print(f"  literal epoch {len(seconds)}: val {accuracy:.3f}, {sum(seconds):.0f} s", flush=True)
    rows = [
        ["package, recipe tuned, 4-epoch schedule", f"{reached[-1]:.0f}", ""],
        [f"literal pipeline ({len(seconds)} epochs of {statistics.median(seconds):.0f} s)", f"{sum(seconds):.0f}", ""],
        ["literal over package", "", f"{sum(seconds) / reached[-1]:.1f}×"],
    ]
    show(
        f"Training to {TARGET:.0%} of {len(val):,} validation images on {len(setup.train):,} training images, one run",
        ["What", "Seconds", "Ratio"],
        rows,
        setup,
    )


if __name__ == "__main__":
    loaded = load()
    throughput(loaded)
    time_to_target(loaded)
