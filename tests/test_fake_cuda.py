"""The package's own code on a GPU that is not there, and nobody in it waits for the other.

FakeTensorMode gives tensors a shape, a type and a device, but no numbers. So this finds what lies on the wrong device,
and what makes the CPU wait for a GPU in each step: a number that is read, a copy from ordinary memory, a mask whose
length the CPU must know. It finds no wrong number, no lack of memory, no kernel that CUDA does not have: those are left
to `python -m benchmarks.gpu`. For each case there is one with a mistake in it, which must be found.
"""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import timm
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hw1_utils import augment, experiment
from hw1_utils.config import make_config
from hw1_utils.context import Context
from hw1_utils.data import Data, Split
from hw1_utils.device import Precision
from hw1_utils.experiment import Trained, class_weights, cnn, probe
from hw1_utils.features import Features, SplitFeatures, _encode
from hw1_utils.io import arrays
from hw1_utils.io.arrays import Rows
from hw1_utils.measure import costs
from hw1_utils.models import FrozenEncoder
from hw1_utils.optim import MovingAverage
from hw1_utils.studies.flips import flip_tta
from hw1_utils.training import Predictions, evaluate, fit

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
ATEN = torch.ops.aten
COUNTED = (ATEN.nonzero.default, ATEN.masked_select.default, ATEN.bincount.default, ATEN._unique2.default)
TRAIN, VAL, SIZE, STEPS = 48, 12, 8, 6  # images; of a batch; batches of an epoch


class Machine(TorchDispatchMode):
    """Says 0 where a GPU's tensor is read, and 1 for a CPU's; while it is `watching`, notes what makes a CPU wait."""

    def __init__(self):
        super().__init__()
        self.waits, self.watching = [], False

    def note(self, what):
        if self.watching:
            self.waits.append(what)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is ATEN._local_scalar_dense.default:
            on_gpu = args[0].device.type == "cuda"
            if on_gpu:
                self.note("read")
            return (float if args[0].is_floating_point() else int)(not on_gpu)
        if func is ATEN._amp_update_scale_.default:  # in place, and not known to FakeTensorMode
            return args[0]
        if func in COUNTED:
            self.note(func.name())
        if func is ATEN.index.Tensor:
            self.look_at(args[0], [index for index in args[1] if index is not None])
        if "_foreach_" in func.name():  # FakeTensorMode does not compare the devices of lists
            devices = {tensor.device.type for tensor in tree_leaves(args) if isinstance(tensor, torch.Tensor)}
            assert len(devices) == 1, f"{func.name()} with tensors on {devices}"
        result = func(*args, **kwargs)
        if func is ATEN._to_copy.default:
            self.look_for_copy(args[0], result, kwargs.get("non_blocking", False))
        elif func is ATEN.copy_.default:
            self.look_for_copy(args[1], args[0], kwargs.get("non_blocking", args[2] if len(args) > 2 else False))
        return result

    def look_at(self, source, indices):
        for index in indices:
            assert source.device.type == "cuda" or index.device.type == "cpu", (
                "a tensor of the CPU, an index of the GPU"
            )
            if index.device != source.device:
                self.note("index of the CPU")
            if index.dtype == torch.bool:
                self.note("mask")

    def look_for_copy(self, source, target, non_blocking):
        if source.device.type != target.device.type and not (
            non_blocking and getattr(source, "in_pinned_memory", False)
        ):
            self.note(f"copy {source.device.type} to {target.device.type}")

    def watch(self, batches):
        """The batches; watching from the moment the first is there, an epoch's order with it, to the last's end."""
        for batch in batches:
            self.watching = True
            yield batch
        self.watching = False


class Draws(TorchFunctionMode):
    """Random numbers come of a generator of their own device, as CUDA wants it and FakeTensorMode does not."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result, generator = func(*args, **(kwargs or {})), (kwargs or {}).get("generator")
        assert generator is None or generator.device.type == result.device.type, "a generator of another device"
        return result


class Generator(torch.Generator):
    """One that says it is a GPU's: without one none can be made."""

    def __new__(cls, device="cpu"):
        made = super().__new__(cls, "cpu")
        made.device = torch.device(device)
        return made

    device = None


class AtOnce:
    """In place of the thread that reads ahead: a FakeTensorMode belongs to one thread."""

    def __init__(self, workers):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, work, *args):
        return Done(work(*args))


class Done:
    def __init__(self, value):
        self.value = value

    def result(self):
        return self.value


def pinned(tensor):
    assert tensor.device.type == "cpu"
    copy = tensor.clone()
    copy.in_pinned_memory = True
    return copy


def copied(tensor, memo):
    """Else its mode would be copied with it."""
    if id(tensor) not in memo:
        copy = tensor.detach().clone()
        parameter = isinstance(tensor, torch.nn.Parameter)
        memo[id(tensor)] = torch.nn.Parameter(copy, tensor.requires_grad) if parameter else copy
    return memo[id(tensor)]


def applied(module, change, recurse=True):
    """`Module.to`, with new parameters: torch would exchange the old ones' contents, which fake ones do not let it."""
    for child in module.children():
        applied(child, change)
    for name, old in module._parameters.items():
        if old is not None:
            module._parameters[name] = torch.nn.Parameter(change(old.detach()), old.requires_grad)
    module._buffers |= {name: change(old) for name, old in module._buffers.items() if old is not None}
    return module


def without_gradients(mode):
    """In place of inference mode, in which whole operators come to `Machine`, and not the pieces that it knows."""
    mode._inference_mode_context = torch.no_grad()
    mode._inference_mode_context.__enter__()


def backward(loss):
    """What autograd's engine does, node by node. The engine itself asks a driver that is not there."""
    nodes, gradients = [], {}

    def visit(node):
        if node not in gradients:
            gradients[node] = [None] * len(node._input_metadata)
            for following, _ in node.next_functions:
                if following:
                    visit(following)
            nodes.append(node)

    visit(loss.grad_fn)
    gradients[loss.grad_fn] = [torch.ones_like(loss)]
    with torch.no_grad():
        for node in reversed(nodes):
            for number, (given, wanted) in enumerate(zip(gradients[node], node._input_metadata, strict=True)):
                if given is not None:
                    assert given.device == wanted.device, f"a gradient on another device than {wanted.device}"
                    gradients[node][number] = given.sum_to_size(tuple(wanted.shape)).to(wanted.dtype)
            found = node(*gradients[node])
            found = found if isinstance(found, tuple) else (found,)
            for (following, number), gradient in zip(node.next_functions, found, strict=False):
                if following and gradient is not None:
                    before = gradients[following][number]
                    gradients[following][number] = gradient if before is None else before + gradient


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pinned)
    monkeypatch.setattr(arrays, "ThreadPoolExecutor", AtOnce)
    # How many there are of each class a fake tensor does not know; it is no part of a step.
    monkeypatch.setattr(Split, "counts", lambda split: dict.fromkeys(split.classes, len(split) // 3))
    monkeypatch.setattr(FakeTensor, "__deepcopy__", copied)
    monkeypatch.setattr(torch.nn.Module, "_apply", applied)
    monkeypatch.setattr(torch.Tensor, "backward", backward)
    monkeypatch.setattr(torch.inference_mode, "__enter__", without_gradients)
    with FakeTensorMode(), Draws(), Machine() as machine:
        yield machine


# ---- what a run is made of


def make_data(precision="fp32", *, streamed=False, **settings):
    config = make_config("smoke", device="cpu", cnn_batch_size=SIZE, probe_batch_size=SIZE, **settings)
    context = Context(config, CUDA, Precision(precision), environment={})

    def split(name, count):
        images = torch.zeros(count, 3, 32, 32, dtype=torch.uint8, device=CPU if streamed else CUDA)
        labels = torch.zeros(count, dtype=torch.int64, device=CUDA)
        return Split(name, Rows(images, streamed), labels, [f"{i}.png" for i in range(count)], ["a", "b", "c"])

    return Data(context, split("train", TRAIN), split("val", VAL), torch.zeros(3), torch.ones(3))


def make_encoder(dtype=torch.float32):
    backbone = timm.create_model("test_vit", num_classes=0)
    encoder = FrozenEncoder(backbone, name="test_vit", source="", weights_sha256="", dtype=dtype)
    return encoder.to(CUDA)


def make_features(data, encoder, streamed=False):
    device = CPU if streamed else CUDA
    train, val = (
        SplitFeatures(Rows(torch.zeros(count, encoder.columns, device=device), streamed), 1.0) for count in (TRAIN, VAL)
    )
    return Features(encoder, data, train, val, data.train)


def make_probe(monkeypatch, pooling, streamed=False):
    # scikit-learn computes them from numbers, on the CPU
    monkeypatch.setattr(
        experiment, "standardization", lambda rows: (torch.zeros(rows.shape[1]), torch.ones(rows.shape[1]))
    )
    return probe(make_features(make_data(), make_encoder(), streamed), pooling)


def train(machine, run, spoil=lambda model, optimization: None):
    """An epoch, watched; the model, and its optimisation."""
    optimization = run.optimization(run.model)
    spoil(run.model, optimization)
    batches = machine.watch(run.train.batches(SIZE, 1))
    fit(run.model, lambda epoch: batches, optimization, epochs=1, precision=run.precision)
    return run.model, optimization


def on_gpu(*tensors):
    return all(tensor.device.type == "cuda" for tensor in tensors)


@contextmanager
def found():
    """A mistake: FakeTensorMode refuses it, or `Machine` does."""
    with pytest.raises((RuntimeError, AssertionError), match=r"device|on \{|of the CPU"):
        yield


# ---- batches


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("recipe", ["assignment", "tuned"])
def test_batches_are_made_on_the_gpu(gpu, recipe, streamed):
    run = cnn(make_data(streamed=streamed), recipe)
    for epoch in (1, None):
        for images, labels in gpu.watch(run.train.batches(SIZE, epoch)):
            assert on_gpu(images, labels) and images.shape == (SIZE, 3, 32, 32) and images.dtype == torch.float32
    assert gpu.waits == []
    assert on_gpu(augment.preview("shift", torch.zeros(2, 3, 32, 32, dtype=torch.uint8, device=CUDA), seed=0))


@pytest.mark.parametrize("recipe", ["assignment", "tuned"])
def test_a_generator_of_the_cpu_is_found(gpu, recipe):
    run = cnn(make_data(), recipe)
    with found():
        run.train.transform(torch.zeros(2, 3, 32, 32, dtype=torch.uint8, device=CUDA), torch.Generator())


@pytest.mark.parametrize("recipe", ["assignment", "tuned"])
def test_a_draw_on_the_cpu_is_found(gpu, monkeypatch, recipe):
    draw = torch.rand
    monkeypatch.setattr(torch, "rand", lambda *size, device, generator: draw(*size, generator=generator))
    with found():
        next(iter(cnn(make_data(), recipe).train.batches(SIZE, 1)))


def test_a_constant_on_the_cpu_is_found(gpu):
    """It would be copied for every batch, and the CPU would wait for it."""
    run = cnn(make_data(), "tuned")
    transform = replace(run.train.transform, mean=torch.zeros(3))
    list(gpu.watch(replace(run.train, transform=transform).batches(SIZE, 1)))
    assert gpu.waits == ["copy cpu to cuda"] * (STEPS - 1)  # of the first batch nobody knows


@pytest.mark.parametrize("mistake", ["memory", "device"])
def test_a_batch_that_is_streamed_wrongly_is_found(gpu, monkeypatch, mistake):
    run = cnn(make_data(streamed=True), "tuned")
    if mistake == "memory":
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
        list(gpu.watch(run.train.batches(SIZE, 1)))
        assert "copy cpu to cuda" in gpu.waits
    else:
        monkeypatch.setattr(arrays.Rows, "chunks", lambda rows, order, size, device: rows.values[order].split(size))
        with found():
            train(gpu, run)


# ---- steps of the CNN


def test_class_weights_are_on_the_gpu(gpu):
    assert on_gpu(class_weights(make_data().train))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("recipe", ["assignment", "tuned", "distilled"])
def test_nobody_waits_in_a_step_of_the_cnn(gpu, recipe, precision):
    data = make_data(precision, class_weights=True)
    teacher = None
    if recipe == "distilled":
        said = Predictions(0.0, 0.0, torch.zeros(TRAIN, 3), torch.zeros(TRAIN, dtype=torch.int64))
        teacher = Trained(cnn(data), None, None, said, said, {"total_training_seconds": 1.0})
    model, optimization = train(gpu, cnn(data, recipe, teacher=teacher))
    assert gpu.waits == []
    assert on_gpu(*model.parameters(), *(parameter.grad for parameter in model.parameters()))
    state = [x for values in optimization.optimizer.state.values() for x in values.values()]
    assert on_gpu(*(x for x in state if isinstance(x, torch.Tensor) and x.ndim)) and state
    assert (recipe == "assignment") == (optimization.ema is None)


@pytest.mark.parametrize("recipe", ["assignment", "tuned"])
def test_in_fp16_the_gradients_scale_is_read_once_a_step(gpu, recipe):
    """torch's GradScaler asks whether all gradients are finite before it lets an optimiser step that is not fused."""
    train(gpu, cnn(make_data("fp16"), recipe))
    assert gpu.waits == ["read"] * STEPS


def test_the_number_format_is_the_gpus(gpu):
    run = cnn(make_data("bf16"), "tuned")
    ((images, _), *_) = run.val.in_order()
    with run.precision.autocast(CUDA):
        assert run.model(images).dtype == torch.bfloat16


def ema_on_the_cpu(model, optimization):
    optimization.ema.cpu()


def momentum_on_the_cpu(model, optimization):
    for parameter in model.parameters():
        optimization.optimizer.state[parameter]["momentum"] = torch.zeros(parameter.shape)


def adam_on_the_cpu(model, optimization):
    for parameter in model.parameters():
        zeros = [torch.zeros(parameter.shape) for _ in range(2)]
        optimization.optimizer.state[parameter] |= {
            "step": torch.tensor(0.0),
            "exp_avg": zeros[0],
            "exp_avg_sq": zeros[1],
        }


def model_on_the_cpu(model, optimization):
    model.cpu()


MISTAKES = [
    *(("tuned", mistake) for mistake in (ema_on_the_cpu, momentum_on_the_cpu, model_on_the_cpu)),
    *(("assignment", mistake) for mistake in (adam_on_the_cpu, model_on_the_cpu)),
]


@pytest.mark.parametrize(("recipe", "mistake"), MISTAKES, ids=[f"{r}-{m.__name__}" for r, m in MISTAKES])
def test_what_a_step_has_left_on_the_cpu_is_found(gpu, recipe, mistake):
    with found():
        train(gpu, cnn(make_data(), recipe), mistake)


def test_class_weights_on_the_cpu_are_found(gpu, monkeypatch):
    monkeypatch.setattr(experiment, "class_weights", lambda split: torch.ones(3))
    with found():
        train(gpu, cnn(make_data(class_weights=True), "tuned"))


def test_a_loss_that_is_read_in_each_step_is_found(gpu, monkeypatch):
    monkeypatch.setattr("hw1_utils.training.steps_between_looks", lambda device: 1)
    train(gpu, cnn(make_data(), "tuned"))
    assert gpu.waits == ["read"] * STEPS


def test_the_moving_average_stays_on_the_gpu(gpu):
    model = cnn(make_data(), "tuned").model
    ema = MovingAverage(model, 0.9)
    ema.update(model)
    assert on_gpu(*ema.parameters())


# ---- encoder and probe


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_encoder_stays_on_the_gpu(gpu, dtype):
    encoder, images = make_encoder(dtype), torch.zeros(4, 3, 32, 32, dtype=torch.uint8, device=CUDA)
    gpu.watching = True
    features = encoder(images)
    assert on_gpu(features) and features.dtype == torch.float32 and features.shape == (4, encoder.columns)
    assert gpu.waits == []
    values, _, size = _encode(encoder, Rows(images), range(4), 2, print)
    assert values.device == CPU and size == 2 and gpu.waits == ["copy cuda to cpu"]  # one a chunk, not one a batch


def test_an_encoders_constant_on_the_cpu_is_found(gpu):
    encoder = make_encoder()
    encoder.mean = torch.zeros(3)
    gpu.watching = True
    encoder(torch.zeros(4, 3, 32, 32, dtype=torch.uint8, device=CUDA))
    assert gpu.waits == ["copy cpu to cuda"]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("pooling", ["cls", "blocks"])
def test_nobody_waits_in_a_step_of_the_probe(gpu, monkeypatch, pooling, streamed):
    run = make_probe(monkeypatch, pooling, streamed)
    model, _ = train(gpu, run)
    assert gpu.waits == [] and on_gpu(*model.parameters())
    whole = run.from_pixels.assemble(model)
    assert on_gpu(whole(torch.zeros(2, 3, 32, 32, dtype=torch.uint8, device=CUDA)))


@pytest.mark.parametrize("pooling", ["cls", "blocks"])
def test_statistics_that_stay_on_the_cpu_are_found(gpu, monkeypatch, pooling):
    run = make_probe(monkeypatch, pooling)
    mean = torch.zeros(run.model.in_features)
    spoilt = replace(run, train=replace(run.train, transform=lambda values, generator=None: values - mean))
    with found():
        train(gpu, spoilt)


# ---- evaluation and costs


@pytest.mark.parametrize("kind", ["cnn", "probe"])
def test_an_evaluation_reads_what_it_found_in_the_end(gpu, monkeypatch, kind):
    run = cnn(make_data("bf16"), "tuned") if kind == "cnn" else make_probe(monkeypatch, "blocks")
    said = evaluate(run.model, gpu.watch(run.val.batches(SIZE)), run.precision)
    assert gpu.waits == []
    assert said.probabilities.device == said.labels.device == CPU  # metrics take them as NumPy arrays
    assert said.probabilities.dtype == torch.float32 and said.probabilities.shape == (VAL, 3)


def test_labels_on_the_cpu_are_found(gpu):
    run = cnn(make_data(), "tuned")
    with found():
        evaluate(run.model, ((images, labels.cpu()) for images, labels in run.val.in_order()), run.precision)


def test_flips_and_costs_run_on_the_gpu(gpu, monkeypatch):
    run = cnn(make_data("bf16"), "tuned")
    said = Predictions(0.0, 0.0, torch.zeros(VAL, 3), torch.zeros(VAL, dtype=torch.int64))
    trained = Trained(run, run.model, None, said, said, {})
    assert flip_tta(trained, run.data.val).probabilities.device == CPU
    for one in (run, make_probe(monkeypatch, "blocks")):
        assert costs._step_seconds(one) >= 0
        pixels = one.from_pixels.samples.inputs[:4]
        assert on_gpu(one.from_pixels.model(one.from_pixels.samples.transform(pixels, None)))
    costs.train_a_little(
        run.from_pixels.blank,
        run.optimization,
        run.from_pixels.samples.transform,
        CUDA,
        run.precision,
        (SIZE, 3, 32, 32),
        3,
    )
