"""The train loop, the evaluation pass and the overfit check, on models small enough to compute by hand."""

import copy
import dataclasses
import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import PowerCut
from sklearn.linear_model import LogisticRegression
from torch import nn

from hw1_utils import training
from hw1_utils.device import Precision
from hw1_utils.errors import Hw1Error
from hw1_utils.io.checkpoint import Checkpoint
from hw1_utils.io.files import read_checked
from hw1_utils.io.progress import Progress
from hw1_utils.io.tracking import Tracker
from hw1_utils.optim import MovingAverage, Optimization, one_cycle
from hw1_utils.studies.sanity import overfit_check
from hw1_utils.training import evaluate, fit

FP32 = Precision("fp32")
N, D, K, BATCH, EPOCHS = 23, 4, 3, 5, 5  # the last batch of an epoch has 3 rows
X = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
Y = (X @ torch.randn(D, K, generator=torch.Generator().manual_seed(1))).argmax(1)


def cut(x=X, y=Y, size=BATCH):
    return list(zip(x.split(size), y.split(size), strict=True))


def noisy(epoch):
    """Batches whose order and noise belong to the epoch's number, as in real training."""
    generator = torch.Generator().manual_seed(epoch)
    order = torch.randperm(N, generator=generator)
    return cut(X[order] + 0.1 * torch.randn(N, D, generator=generator), Y[order])


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, 8), nn.LeakyReLU(), nn.Linear(8, K))


def numpy_loss(model, x=X, y=Y, smoothing=0.0):
    """Mean cross-entropy over samples, written out."""
    logits = model(x).detach().double().numpy()
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    nll = -log_p[np.arange(len(y)), y.numpy()]
    return float(((1 - smoothing) * nll - smoothing * log_p.mean(1)).mean())


def plain_fit(model, batches=lambda epoch: cut(), *, lr=0.1, epochs=1, precision=FP32, also=None, **kwargs):
    """`also`: further fields of the Optimization."""
    optimization = Optimization(torch.optim.SGD(model.parameters(), lr), **(also or {}))
    return fit(model, batches, optimization, epochs=epochs, precision=precision, **kwargs)


def without_seconds(history):
    return [{name: value for name, value in row.items() if "seconds" not in name} for row in history]


def same_state(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---- evaluate


def test_evaluate_averages_over_samples_whatever_the_batch_sizes():
    model = network()
    unequal = list(zip(X.split([1, 15, 7]), Y.split([1, 15, 7]), strict=True))
    result = evaluate(model, unequal, FP32)
    logits = model(X).detach()
    assert result.loss == pytest.approx(numpy_loss(model), rel=1e-6)
    assert result.accuracy == pytest.approx(float((logits.argmax(1) == Y).double().mean()))
    assert torch.equal(result.labels, Y)  # every sample, once, in order
    assert torch.allclose(result.probabilities, logits.softmax(1), atol=1e-6)
    place = torch.empty(len(X), logits.shape[1])
    elsewhere = evaluate(model, unequal, FP32, place)
    assert elsewhere.probabilities is place and torch.equal(place, result.probabilities)
    assert (elsewhere.loss, elsewhere.accuracy) == (result.loss, result.accuracy)
    by_batch = np.mean([numpy_loss(model, x, y) for x, y in unequal])
    assert abs(by_batch - result.loss) > 1e-3  # so the test can tell the two averages apart


@pytest.mark.parametrize("training", [True, False])
def test_evaluate_judges_in_eval_mode_and_restores_the_mode(training):
    model = nn.Sequential(nn.Dropout(0.9), network()).train(training)
    result = evaluate(model, cut(), FP32)
    assert result.loss == pytest.approx(numpy_loss(model[1]), rel=1e-6)  # no dropout
    assert [module.training for module in model.modules()] == [training] * len(list(model.modules()))


# ---- fit


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_train_loss_is_weighted_by_samples_and_smoothed_as_asked(smoothing):
    model = network()
    (row,) = plain_fit(model, lr=0.0, also={"label_smoothing": smoothing})
    assert row["train_loss"] == pytest.approx(numpy_loss(model, smoothing=smoothing), rel=1e-6)
    assert row["train_accuracy"] == pytest.approx(float((model(X).argmax(1) == Y).double().mean()))
    assert same_state(model, network())  # lr 0


def test_targets_may_be_probabilities():
    targets = F.one_hot(Y, K).double().lerp(torch.full((N, K), 1 / K).double(), 0.3).float()
    model = network()
    (row,) = plain_fit(model, lambda epoch: cut(X, targets), lr=0.0)
    log_p = model(X).detach().log_softmax(1)
    assert row["train_loss"] == pytest.approx(float(-(targets * log_p).sum(1).mean()), rel=1e-6)
    assert row["train_accuracy"] == pytest.approx(float((log_p.argmax(1) == Y).double().mean()))


@pytest.mark.parametrize("soft", [False, True])
def test_class_weights_count_each_sample_alike_in_every_batch(soft):
    weights = torch.tensor([0.5, 1.0, 4.0])
    targets = F.one_hot(Y, K).float() if soft else Y
    model = network()
    (row,) = plain_fit(model, lambda epoch: cut(X, targets), lr=0.0, also={"class_weights": weights})
    losses = F.cross_entropy(model(X).detach(), Y, reduction="none")
    assert row["train_loss"] == pytest.approx(float((losses * weights[Y]).mean()), rel=1e-6)


def test_scheduler_steps_with_every_optimiser_step():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
    history = fit(model, lambda _: cut(), Optimization(optimizer, scheduler), epochs=2, precision=FP32)
    steps = len(cut())
    assert [row["lr"] for row in history] == pytest.approx([0.5 * 0.9**steps, 0.5 * 0.9 ** (2 * steps)])


def test_moving_average_is_what_is_validated():
    model, judged = network(), []
    ema = MovingAverage(model, 0.9)

    def validate(candidate):
        judged.append(copy.deepcopy(candidate.state_dict()))
        return evaluate(candidate, cut(), FP32)

    (row,) = plain_fit(model, also={"ema": ema}, validate=validate)
    assert all(torch.equal(judged[0][name], value) for name, value in ema.module.state_dict().items())
    assert not torch.equal(judged[0]["0.weight"], model[0].weight)
    assert row["val_loss"] == pytest.approx(numpy_loss(ema.module), rel=1e-6)


def test_diverged_training_stops_at_that_step_and_keeps_the_last_good_state(tmp_path):
    def batches(epoch):
        for i, (x, y) in enumerate(cut(), start=1):
            assert (epoch, i) <= (2, 3), "training went on after the step whose loss is no number"
            yield (x * float("nan") if (epoch, i) == (2, 3) else x), y

    model, checkpoint = network(), Checkpoint(tmp_path / "c.pt", {})
    with pytest.raises(Hw1Error, match=r"^The loss is nan at step 3 of epoch 2: .* lower the learning rate"):
        plain_fit(model, batches, epochs=3, checkpoint=checkpoint)
    kept = network()
    assert len(checkpoint.restore({"model": kept})) == 1
    assert all(parameter.isfinite().all() for parameter in kept.parameters())


def test_on_a_gpu_the_loss_is_looked_at_now_and_then_and_the_step_is_named_all_the_same(monkeypatch):
    seen = []
    monkeypatch.setattr(training, "_refuse_divergence", lambda losses, step, epoch: seen.append((len(losses), step)))
    monkeypatch.setattr(training, "steps_between_looks", lambda device: 2)
    plain_fit(network())  # 5 steps
    assert seen == [(2, 2), (2, 4), (1, 5)]
    monkeypatch.undo()
    losses = [torch.tensor(value) for value in (1.0, float("inf"), float("nan"))]
    with pytest.raises(Hw1Error, match="The loss is inf at step 99 of epoch 7"):
        training._refuse_divergence(losses, 100, 7)


def test_losses_are_bit_identical_with_and_without_the_profiler():
    bare, traced = network(), network()
    expected = plain_fit(bare, noisy, epochs=2)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        history = plain_fit(traced, noisy, epochs=2, profiler=profiler)
    assert without_seconds(history) == without_seconds(expected)
    assert same_state(bare, traced)


def test_a_linear_head_is_as_good_as_scikit_learns_logistic_regression():
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(5, 16, generator=generator)
    labels = torch.arange(12000) % 5
    features = centres[labels] + 1.5 * torch.randn(12000, 16, generator=generator)
    x, y, test_x, test_y = features[:2000], labels[:2000], features[2000:], labels[2000:]
    torch.manual_seed(0)
    head = nn.Linear(16, 5)
    optimizer = torch.optim.AdamW(head.parameters(), lr=5e-2, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=60 * len(cut(x, y, 64)))
    fit(head, lambda _: cut(x, y, 64), Optimization(optimizer, scheduler), epochs=60, precision=FP32)
    ours = evaluate(head, cut(test_x, test_y, 64), FP32)
    reference = LogisticRegression(C=1e6, max_iter=1000).fit(x.numpy(), y.numpy())
    assert ours.accuracy == pytest.approx(reference.score(test_x.numpy(), test_y.numpy()), abs=0.005)
    theirs = reference.predict_proba(test_x.numpy())
    assert np.abs(ours.probabilities.numpy() - theirs).mean() < 0.01
    assert (ours.guesses == theirs.argmax(1)).mean() > 0.97


# ---- interruption and resume


def run_with_everything(path, *, cut_at=None, where=None, settings=None):
    """Momentum, scheduler and moving average; power fails in epoch `cut_at`. Returns what must survive it."""
    model, lines = network(), []
    progress = Progress("x", EPOCHS, "epochs", every=True, say=lines.append)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9, nesterov=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, one_cycle(EPOCHS * len(cut())))
    ema = MovingAverage(model, 0.8)
    epochs_run = []

    def fail(here):
        if where == here and epochs_run[-1] == cut_at:
            raise PowerCut

    def batches(epoch):
        epochs_run.append(epoch)
        for i, batch in enumerate(noisy(epoch)):
            if i == 2:
                fail("batch")
            yield batch

    def validate(candidate):
        fail("validate")
        return evaluate(candidate, cut(), FP32)

    history = fit(
        model,
        batches,
        Optimization(optimizer, scheduler, ema),
        epochs=EPOCHS,
        precision=FP32,
        validate=validate,
        checkpoint=Checkpoint(path, settings or {"seed": 0}, lambda: fail("saved")),
        progress=progress,
    )
    momentum = [state["momentum_buffer"] for state in optimizer.state.values()]
    return model, ema, momentum, scheduler.last_epoch, history, epochs_run, lines


def test_logs_are_joined_in_the_end_also_those_of_a_training_that_ended_before(tmp_path, monkeypatch):
    def power_cut(tracker):
        raise PowerCut

    def run():
        options = {"tracker": Tracker(tmp_path / "logs"), "checkpoint": Checkpoint(tmp_path / "c.pt", {})}
        plain_fit(network(), epochs=2, **options)

    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr(Tracker, "finish", power_cut)
        run()
    files = tmp_path / "logs" / "train"
    assert len(list(files.iterdir())) == 2
    for _ in range(2):
        run()
        assert [file.name.split(".")[4] for file in files.iterdir() if file.stat().st_size] == ["00002"]


@pytest.mark.parametrize(("where", "first_repeated"), [("batch", 3), ("validate", 3), ("saved", 4)])
def test_an_interrupted_run_continues_to_the_very_same_end(tmp_path, where, first_repeated):
    model, ema, momentum, steps, history, *_ = run_with_everything(tmp_path / "whole.pt")
    with pytest.raises(PowerCut):
        run_with_everything(tmp_path / "cut.pt", cut_at=3, where=where)
    model2, ema2, momentum2, steps2, history2, epochs_run, lines = run_with_everything(tmp_path / "cut.pt")
    assert epochs_run == list(range(first_repeated, EPOCHS + 1))
    assert lines[0] == f"  continuing after epoch {first_repeated - 1}, saved on disk"
    assert [line.split(" epochs, train loss ")[0] for line in lines[1:]] == [f"x: {e} of {EPOCHS}" for e in epochs_run]
    assert same_state(model, model2) and same_state(ema, ema2) and steps == steps2
    assert all(torch.equal(a, b) for a, b in zip(momentum, momentum2, strict=True))
    assert without_seconds(history) == without_seconds(history2)


def test_a_checkpoint_of_another_config_is_ignored_and_said(tmp_path, capsys):
    old, new = {"seed": 0, "epochs": 5, "teacher": "a"}, {"seed": 1, "epochs": 5, "encoder": "b"}
    *_, history, _, _ = run_with_everything(tmp_path / "c.pt", settings=old)
    *_, history2, epochs_run, _ = run_with_everything(tmp_path / "c.pt", settings=new)
    assert epochs_run == list(range(1, EPOCHS + 1))
    assert without_seconds(history) == without_seconds(history2)
    why = "seed: 0, now 1, teacher: a, now None, encoder: None, now b"
    assert f"starting afresh: what is on disk was made with other settings ({why})\n" in capsys.readouterr().out


def test_the_scale_of_fp16_gradients_survives_an_interruption(tmp_path):
    def run(path, epochs):
        model, checkpoint = network(), Checkpoint(path, {})
        history = plain_fit(model, noisy, epochs=epochs, precision=Precision("fp16"), checkpoint=checkpoint)
        state = torch.load(io.BytesIO(read_checked(path)[0]["state"].numpy()), weights_only=True)
        return without_seconds(history), state["scaler"]

    whole = run(tmp_path / "whole.pt", 4)
    run(tmp_path / "cut.pt", 2)
    continued = run(tmp_path / "cut.pt", 4)
    assert continued == whole and whole[1]["_growth_tracker"] == 4 * len(cut())


def test_a_validation_loss_that_is_no_number_is_not_saved(tmp_path):
    checkpoint = Checkpoint(tmp_path / "c.pt", {})

    def validate(model):
        return dataclasses.replace(evaluate(model, cut(), FP32), loss=float("nan"))

    with pytest.raises(Hw1Error, match="^The validation loss is nan after epoch 1: training diverged"):
        plain_fit(network(), validate=validate, checkpoint=checkpoint)
    assert not checkpoint.path.exists()


def test_a_damaged_checkpoint_is_said_and_training_starts_afresh(tmp_path, capsys):
    path = tmp_path / "c.pt"
    *_, history, _, _ = run_with_everything(path)
    good = path.read_bytes()
    middle = len(good) // 2
    for damaged in (b"", good[:20], good[:-1], good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]):
        path.write_bytes(damaged)
        *_, history2, epochs_run, _ = run_with_everything(path)
        assert "The file c.pt is damaged: it is made anew." in capsys.readouterr().out
        assert epochs_run == list(range(1, EPOCHS + 1))
        assert without_seconds(history) == without_seconds(history2)


# ---- overfit check


def test_overfit_check_learns_batches_by_heart_and_stops_there():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(D, 32), nn.ReLU(), nn.Linear(32, K))
    random_labels = torch.arange(N) % K
    history, end = overfit_check(model, cut(y=random_labels), lr=1e-2, precision=FP32, max_epochs=1000)
    assert end.accuracy == 1.0 and torch.equal(end.labels, random_labels)
    assert history[-1]["val_accuracy"] == 1.0
    assert all(row["val_accuracy"] < 1.0 for row in history[:-1])
    assert torch.equal(model(X).argmax(1), random_labels)


def test_overfit_check_tells_what_is_not_learnt():
    x, y = torch.cat([X, X[:1]]), torch.cat([Y, (Y[:1] + 1) % K])
    history, end = overfit_check(network(), cut(x, y), lr=1e-2, precision=FP32, max_epochs=30)
    assert len(history) == 30 and end.accuracy < 1.0
    assert {0, len(x) - 1} & set(np.flatnonzero(end.guesses != y.numpy()).tolist())


def test_loss_in_low_precision_is_computed_in_fp32():
    model = network()
    (row,) = plain_fit(model, lr=0.0, precision=Precision("bf16"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = [model(x) for x, _ in cut()]
    assert logits[0].dtype == torch.bfloat16
    expected = F.cross_entropy(torch.cat(logits).float(), Y).item()
    assert row["train_loss"] == pytest.approx(expected, rel=1e-6)
