"""Recipes, Muon and the schedules."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from packaging.version import Version
from timm.optim import Muon as TimmMuon
from timm.optim import muon as timm_muon
from torch import nn

from hw1_utils.models import CNN
from hw1_utils.optim import RECIPES, MovingAverage, Muon, make_optimization, one_cycle


@pytest.mark.skipif(Version(timm.__version__) < Version("1.0.31"), reason="an older timm's Muon is another one")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("classes", "fallback"), [(3, False), (10, False), (40, False), (101, True)])
def test_muon_is_timms_to_the_last_digit(monkeypatch, dtype, classes, fallback):
    """`fallback`: a head of many classes, which timm has to be told to leave to AdamW."""
    original = timm_muon.zeropower_via_newtonschulz
    monkeypatch.setattr(
        timm_muon, "zeropower_via_newtonschulz", lambda *args, **kwargs: original(*args, **kwargs, dtype=dtype)
    )
    torch.manual_seed(0)
    ours = CNN(classes).to(memory_format=torch.channels_last)
    theirs = copy.deepcopy(ours)
    head = {theirs.head.weight} if fallback else set()
    groups = [{"params": [p for p in theirs.parameters() if p not in head]}]
    groups += [{"params": list(head), "use_fallback": True}] if fallback else []
    pairs = [
        (ours, Muon(ours.parameters(), lr=6e-3, weight_decay=0.3, dtype=dtype)),
        (theirs, TimmMuon(groups, lr=6e-3, weight_decay=0.3, momentum=0.95, nesterov=True)),
    ]
    for _ in range(5):
        images, labels = torch.randn(8, 3, 32, 32), torch.randint(classes, (8,))
        for model, optimizer in pairs:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other), name


def test_muon_in_float32_steps_as_in_bfloat16_but_for_rounding():
    moved = []
    for dtype in (torch.bfloat16, torch.float32):
        torch.manual_seed(0)
        layer = nn.Conv2d(8, 16, 3)
        before = layer.weight.detach().clone()
        layer(torch.randn(4, 8, 9, 9)).square().sum().backward()
        Muon(layer.parameters(), lr=0.1, weight_decay=0.01, dtype=dtype).step()
        moved.append(layer.weight.detach() - before)
    assert 1e-5 < (moved[0] - moved[1]).norm() / moved[0].norm() < 0.02  # bf16 has 8 bits, and five rounds of them


@pytest.mark.parametrize("shape", [(8, 8), (16, 72), (72, 16)])
def test_what_muon_applies_is_nearly_orthogonal(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    muon = Muon([nn.Parameter(matrix)], lr=0, weight_decay=0, dtype=torch.float32)
    singular = torch.linalg.svdvals(muon.orthogonalize(matrix))
    assert singular.min() > 0.6 and singular.max() < 1.3


def test_every_recipe_becomes_its_optimiser_schedule_and_average():
    model = CNN(3)
    model.conv1.requires_grad_(False)
    made = {name: make_optimization(model, recipe, 10, muon_dtype=torch.float32) for name, recipe in RECIPES.items()}
    assert type(made["assignment"].optimizer) is torch.optim.AdamW
    assert made["assignment"].scheduler is None and made["assignment"].ema is None
    assert type(made["tuned"].optimizer) is Muon and made["tuned"].optimizer.dtype == torch.float32
    assert made["tuned"].ema.decay == 0.99 and made["tuned"].label_smoothing == 0.1 and made["distilled"].ema
    trained = [id(p) for group in made["tuned"].optimizer.param_groups for p in group["params"]]
    assert trained == [id(p) for p in model.parameters() if p.requires_grad] and len(trained) == 6
    for schedule, rates in (("constant", [1, 1]), ("one_cycle", [0.5, 1]), ("cosine", [1, 0.9755])):
        made = make_optimization(model, replace(RECIPES["assignment"], schedule=schedule), 10, muon_dtype=torch.float32)
        found = [made.optimizer.param_groups[0]["lr"]]
        if made.scheduler:
            made.optimizer.step()
            made.scheduler.step()
        found.append(made.optimizer.param_groups[0]["lr"])
        assert found == pytest.approx([rate * 1e-3 for rate in rates], rel=1e-4), schedule


@pytest.mark.parametrize("steps", [1, 4, 6, 42, 1000])
def test_one_cycle_rises_to_the_peak_and_falls_to_zero(steps):
    factor = one_cycle(steps)
    values = [factor(step) for step in range(steps + 1)]
    peak = int(np.argmax(values))
    assert max(values) == pytest.approx(1.0, abs=1 / steps) and max(values) <= 1.0
    assert values == sorted(values[:peak]) + sorted(values[peak:], reverse=True)
    assert abs(peak - 0.2 * steps) <= 1
    assert values[steps] == 0.0 and all(value > 0 for value in values[:-1])
    assert factor(steps + 3) == 0.0  # never negative, should someone step on


def test_moving_average_of_few_steps_has_forgotten_the_initial_weights():
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(100.0)
        average = MovingAverage(model, decay=0.99)
        for value in range(1, 31):
            model.weight.fill_(float(value))
            average.update(model)
    assert 20 < average.module.weight.item() < 30  # without a warm-up: 100 · 0.99^30 = 74 of the initial weight alone
    long = MovingAverage(model, decay=0.99)
    long.set_extra_state(torch.tensor(10**6))
    long.module.weight.data.zero_()
    long.update(model)
    assert long.module.weight.item() == pytest.approx(0.01 * 30)  # the recipe's own decay
