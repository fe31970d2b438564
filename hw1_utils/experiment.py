"""The story in code: prepare the data, train a CNN, probe a ViT, evaluate both once, compare.

setup = prepare(make_config())
tasks = [*cnn_tasks(setup), ProbeTask(setup), ProbeTask(setup, "layers")]
for task in tasks: sanity_check(task)
trainings = [train(task) for task in tasks]
trainings += [train(taught_by(trainings[-1]))]
results = [judging.judge(training, test) for training in trainings]
"""

import copy
import itertools
import json
import shutil
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from . import metrics
from .batching import batches
from .config import Config
from .errors import Hw1Error, some
from .features import check_finite, standardization
from .io.checkpoint import Checkpoint
from .io.files import read_sealed, sha256_tensors, write_csv, write_sealed
from .io.tracking import Tracker
from .measure.costs import measure_costs, trace_training
from .preparation import prepare  # noqa: F401 (it belongs to the story, as the probes do)
from .probes import ProbeTask, probe_tasks  # noqa: F401
from .tasks import CNNTask, Task, cnn_tasks  # noqa: F401
from .training import Evaluation, evaluate, fit, judged, overfit_check

SANITY_BATCHES, SANITY_BATCH_SIZE = 3, 32
NEARLY = 3.0  # levels of 255: as much as saving as JPEG again may change a picture on average
FEW = 0.1  # of the pictures: more that are not learnt are no matter of single labels


def sanity_check(task: Task) -> list[dict]:
    """Overfit three un-augmented batches with a copy of the model; the history, as from `fit`.

    Pictures that lie in several classes cannot be learnt by any model: they are named and left out. Where a few are
    not learnt and near copies of them lie in other classes, that is said, and no reason to stop.

    Raises:
        Hw1Error: other pictures are not learnt, or most are alike. With `Config.sanity_check` "warn" it is said alone.
    """
    train, config = task.setup.train, task.setup.config
    generator = torch.Generator().manual_seed(config.seed)
    chosen = torch.randperm(len(train), generator=generator)[: SANITY_BATCHES * SANITY_BATCH_SIZE].to(task.setup.device)
    pictures, labels = train.take(chosen), train.labels[chosen]
    copies = _in_several_classes(pictures, labels)
    alone = sorted(set(range(len(chosen))) - set(itertools.chain(*copies)))
    groups = [" and ".join(train.paths[chosen[row]] for row in rows) for rows in copies]
    if len(alone) < len(chosen) / 2:
        _complain(config, f"{len(chosen) - len(alone)} of {len(chosen)} pictures are alike ({some(groups)})")
        return []
    if groups:
        print(f"WARNING: the same picture lies in several classes, so that labels are wrong: {some(groups)}.")
    chosen, pictures, labels = chosen[alone], pictures[alone], labels[alone]
    inputs = task.look(task.seen(train).take(chosen))
    if task.kind == "probe":
        parts = inputs.split(config.extract_batch_size)
        features = torch.cat([task.full_model.features(part) for part in parts])
        check_finite(features, task.encoder)
        mean, deviation = (x.to(features.device) for x in standardization(features))
        inputs = (features - mean) / deviation
    fixed = list(batches(inputs, labels, SANITY_BATCH_SIZE))
    try:
        history, end = overfit_check(copy.deepcopy(task.model), fixed, lr=task.sanity_lr, precision=task.precision)
    except Hw1Error as error:  # it diverged
        _complain(config, str(error))
        return []
    passes = f"{len(history)} pass{'es' if len(history) > 1 else ''}"
    print(f"{task.title}: {len(fixed)} batches, accuracy {end.accuracy} after {passes}")
    guesses = end.probabilities.argmax(1)
    wrong = (guesses != end.labels).nonzero().flatten().tolist()
    if wrong:
        named = [
            f"{train.paths[chosen[row]]} (in {train.classes[labels[row]]}, taken for {train.classes[guesses[row]]})"
            for row in wrong
        ]
        complaint = (
            f"after {passes} over {len(fixed)} batches {task.title} still gets {len(wrong)} of these very "
            f"images wrong: {some(named)}"
        )
        if len(wrong) <= FEW * len(chosen) and set(wrong) <= _nearly_in_another_class(pictures, labels):
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


@dataclass(frozen=True)
class Training:
    """A trained model and what its training looked like."""

    task: Task
    model: nn.Module  # the one to judge: the moving average where the recipe keeps one
    history: pd.DataFrame
    operators: pd.DataFrame  # of the trace
    costs: dict  # row of model_profile_comparison.csv
    evaluations: dict[str, Evaluation]  # train and val, without augmentation

    @property
    def val_score(self) -> float:
        """The leading measure on validation: what encoders are chosen by. See `metrics.leading`."""
        val, counts = self.evaluations["val"], self.task.setup.train.counts().values()
        return metrics.score(val.labels.numpy(), val.probabilities.argmax(1).numpy(), metrics.leading(counts))


def taught_by(teacher: Training) -> CNNTask:
    """The CNN that learns from the labels and from a finished probe's probabilities (knowledge distillation)."""
    task = CNNTask(teacher.task.setup, "taught", teacher.evaluations["train"].probabilities)
    task.teacher_seconds = teacher.costs["total_training_seconds"]
    return task


def train(task: Task) -> Training:
    """Trace the first steps, train, and measure what it costs. Finished parts on disk are used, not repeated.

    The trace is taken on a copy, with the same loop on the same first batches, so that the profiler's own
    cost never enters the training time.

    Raises:
        Hw1Error: training diverged, the GPU's memory is too small, or a disk is full; what was finished stays.
    """
    try:
        return _train(task)
    except KeyboardInterrupt:
        then = (
            "starts over, as fresh=True asks" if task.setup.config.fresh else "continues after the last finished epoch"
        )
        print(f"  stopped: run it again, and it {then}")
        raise
    except torch.OutOfMemoryError as error:
        raise Hw1Error(
            f"The GPU's memory is too small for {task.title}: lower {task.kind}_batch_size (now {task.batch_size}) and "
            "extract_batch_size, or take device='cpu'."
        ) from error


def _train(task: Task) -> Training:
    setup = task.setup
    state = task.runs / "state"  # git-ignored
    print(f"{task.title}: {task.epochs} epochs")
    if setup.config.fresh:
        shutil.rmtree(state, ignore_errors=True)
    elif (
        setup.backup.folder
        and read_sealed(state / "checkpoint.pt") is None
        and setup.backup.restore(task.runs, f"runs/{task.name}")
    ):
        print("  brought back from its copy in backup_dir")
    checkpoint = checkpoint_of(task, "checkpoint")
    settings = checkpoint.settings
    measured = json.loads(read_sealed(state / "costs") or b"{}")
    if measured.get("settings") != settings:
        measured = {}
        (state / "costs").unlink(missing_ok=True)  # it speaks of the trace that is replaced now
        trace = trace_training(task)
        print(f"  trace of {trace.steps} steps: {trace.operator_calls:,} operator calls")
    tracker = Tracker(task.runs / "logs", frozen=task.encoder if task.kind == "probe" else None)
    extraction, timed = 0.0, 0
    if task.kind == "probe":
        extraction, timed = task.features(setup.train).seconds, task.features(setup.train).timed
        task.features(setup.val)  # its seconds count as little as the CNN's looks at validation do
    task.reset()
    recipe = task.recipe(task.model)
    history = fit(
        task.model,
        task.train_batches,
        epochs=task.epochs,
        precision=task.precision,
        validate=lambda model: evaluate(model, task.eval_batches(setup.val), task.precision),
        tracker=tracker,
        checkpoint=checkpoint,
        say=print,
        **recipe,
    )
    if not measured:
        print("  measuring speed and memory")
        calls = {
            "trace_steps": trace.steps,
            "operator_calls": trace.operator_calls,
            "operator_calls_per_step": trace.operator_calls / trace.steps,
        }
        costs = measure_costs(task) | calls
        measured = {"settings": settings, "costs": costs, "operators": trace.operators.to_dict("list")}
        write_sealed(state / "costs", json.dumps(measured).encode())
        setup.backup.keep(task.runs, f"runs/{task.name}")
    # What the clock of this very training says is not kept beside it: a training that is repeated has its own.
    seconds = history[-1]["elapsed_seconds"]
    spent = {
        "training_seconds": seconds,
        "extraction_seconds": extraction,
        "extraction_timed_images": timed,  # fewer than there are: computed on another machine or with other threads
        "teacher_seconds": task.teacher_seconds,
        "total_training_seconds": seconds + extraction + task.teacher_seconds,
        "loop_images_per_second": len(setup.train) * len(history) / seconds,
    }
    operators = pd.DataFrame(measured["operators"])
    write_csv(task.results / "operators.csv", operators)
    model = judged(task.model, recipe.get("ema"))
    return Training(
        task=task,
        model=model,
        history=pd.DataFrame(history),
        operators=operators,
        costs=measured["costs"] | spent,
        evaluations={s.name: evaluate(model, task.eval_batches(s), task.precision) for s in (setup.train, setup.val)},
    )


def checkpoint_of(task: Task, name: str) -> Checkpoint:
    """Where a training of this task is kept after each epoch: an interrupted one continues, a finished one is used."""

    def keep() -> None:
        task.setup.backup.keep(task.runs, f"runs/{task.name}")

    return Checkpoint(task.runs / "state" / f"{name}.pt", settings_of(task), keep)


def settings_of(task: Task) -> dict:
    """All that weights, logs and costs depend on: the task's own settings, the pixels and labels, the machine."""
    setup, machine = task.setup, task.setup.environment
    data = {f"{split.name} data": split.sha256[:16] for split in (setup.train, setup.val)}
    # A GPU's training hardly knows how many threads feed it, and may go on beside other ones.
    threads = {"threads": machine["torch_threads"]} if setup.device.type == "cpu" else {}
    return {
        **task.settings(),
        "device": machine["device"],
        **threads,
        "precision": setup.precision.name,
        **{package: machine["packages"][package] for package in ("torch", "torchvision", "timm")},
        **data,
        "targets": sha256_tensors({"targets": task.targets})[:16],
    }
