"""The CNN is the documented one; the encoder is frozen and fed as its weights were; the probe is its head."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms.functional import to_pil_image

from hw1_utils.config import make_config
from hw1_utils.errors import Hw1Error
from hw1_utils.features import standardization
from hw1_utils.models import CNN, FrozenEncoder, Probe, folded, load_encoder, whiten

CPU = torch.device("cpu")


def random_encoder(name: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> FrozenEncoder:
    return load_encoder(make_config("smoke", encoder=name, seed=seed), CPU, dtype)


@pytest.fixture(scope="module", params=["vit_tiny_patch16_224", "tf_efficientnet_lite0"])
def encoder(request):
    return random_encoder(request.param)


@pytest.fixture(scope="module")
def tiny():
    return random_encoder("test_vit")  # timm's own 0.3 M-parameter ViT, 160 px


def noise(count: int, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


# ---- the CNN


def test_cnn_has_the_documented_number_of_parameters():
    assert sum(p.numel() for p in CNN(10).parameters()) == 113_738


@pytest.mark.parametrize(("size", "classes"), [(8, 2), (32, 10), (35, 3), (48, 7), (64, 100)])
def test_cnn_takes_other_image_sizes_and_class_counts(size, classes):
    assert CNN(classes, size)(torch.zeros(2, 3, size, size)).shape == (2, classes)


def test_cnn_is_the_architecture_to_the_letter():
    """Three 3×3 convolutions 32/64/128, LeakyReLU and MaxPool2d(2) after each, one linear layer, nothing else."""
    model = CNN(10)
    kinds = {type(m) for m in model.modules() if m is not model}
    assert kinds == {nn.Conv2d, nn.LeakyReLU, nn.MaxPool2d, nn.Linear}
    assert list(model.buffers()) == []  # no BatchNorm statistics
    assert [tuple(p.shape) for p in model.parameters()] == [
        *[(32, 3, 3, 3), (32,), (64, 32, 3, 3), (64,), (128, 64, 3, 3), (128,), (10, 2048), (10,)]
    ]
    w1, b1, w2, b2, w3, b3, w, b = model.parameters()
    x = images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for weight, bias in ((w1, b1), (w2, b2), (w3, b3)):
        x = F.max_pool2d(F.leaky_relu(F.conv2d(x, weight, bias, padding=1), 0.01), 2)
    expected = x.reshape(4, -1) @ w.T + b
    torch.testing.assert_close(model(images), expected)
    torch.testing.assert_close(model.eval()(images), expected)
    gradients = [torch.autograd.grad(F.cross_entropy(y, torch.arange(4)), w1) for y in (model(images), expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("grey", "directions"), [(False, 16), (True, 9)])
def test_a_whitened_layer_begins_with_uncorrelated_responses_of_unit_deviation(grey, directions):
    images = F.avg_pool2d(torch.randn(64, 3, 34, 34, generator=torch.Generator().manual_seed(0)), 3, 1)  # alike nearby
    images = images[:, :1].expand(-1, 3, -1, -1) if grey else images
    model, before = CNN(10), CNN(10)
    before.load_state_dict(model.state_dict())
    whiten(model.conv1, images)
    responses = F.conv2d(images, model.conv1.weight, model.conv1.bias)[:, : 2 * directions].transpose(0, 1).flatten(1)
    covariance = torch.cov(responses[:directions])
    torch.testing.assert_close(covariance, torch.eye(directions), rtol=0, atol=0.06)
    torch.testing.assert_close(responses[:directions], -responses[directions:])
    assert torch.equal(model.conv1.weight[2 * directions :], before.conv1.weight[2 * directions :])
    assert all(torch.equal(a, b) for a, b in zip([*model.parameters()][2:], [*before.parameters()][2:], strict=True))


def test_images_of_one_colour_leave_a_layer_as_it_is():
    model = CNN(10)
    weight = model.conv1.weight.clone()
    whiten(model.conv1, torch.zeros(4, 3, 8, 8))
    assert torch.equal(model.conv1.weight, weight)


# ---- the frozen encoder


def test_attention_in_steps_is_the_fused_one_and_few_patches_on_a_cpu_have_it(tiny):
    encoder, images = copy.deepcopy(tiny), noise(3)
    in_steps = encoder(images)
    assert not any(block.attn.fused_attn for block in encoder.backbone.blocks)
    for block in encoder.backbone.blocks:
        block.attn.fused_attn = True
    torch.testing.assert_close(encoder(images), in_steps)
    encoder.to("meta")  # any other device
    assert all(block.attn.fused_attn for block in encoder.backbone.blocks) and encoder.fused_attention


def test_training_the_probe_leaves_the_encoder_as_it_was(encoder):
    probe = Probe(encoder, 3).train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    head = probe.head.weight.detach().clone()
    assert encoder.is_vit or any(name.endswith("running_mean") for name in before)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=0.1, weight_decay=0.1)  # all of them, on purpose
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(probe(noise(3)), torch.arange(3)).backward()
        optimizer.step()
    after = encoder.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(probe.head.weight, head)
    assert all(p.grad is None for p in encoder.parameters())


def test_nothing_in_the_encoder_is_trainable_or_in_train_mode(encoder):
    Probe(encoder, 3).train()
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())
    assert [name for name, p in Probe(encoder, 3).named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]


def test_features_have_the_heads_input_width(encoder):
    width = {"vit_tiny_patch16_224": 192, "tf_efficientnet_lite0": 1280}[encoder.name]
    features = encoder(noise(2))
    assert encoder.head_columns == width and features.shape == (2, encoder.columns)
    assert encoder.columns == {"vit_tiny_patch16_224": 192 * (2 + 2 * 4)}.get(encoder.name, width)
    assert features.dtype == torch.float32 and not features.requires_grad
    assert torch.equal(features, encoder(noise(2)))


def test_a_vits_features_are_its_class_token(tiny):
    images = noise(2)
    with torch.inference_mode():
        tokens = tiny.backbone.forward_features(tiny.preprocess(images))
    assert tokens.shape[:2] == (2, 1 + 10 * 10)  # 160 px in patches of 16, and the class token
    torch.testing.assert_close(tiny(images)[:, :64], tokens[:, 0])


def test_the_further_columns_are_patch_means_and_the_last_blocks_tokens(tiny):
    images, outputs = noise(2), []
    hooks = [block.register_forward_hook(lambda *args: outputs.append(args[-1])) for block in tiny.backbone.blocks[-4:]]
    with torch.inference_mode():
        tokens = tiny.backbone.forward_features(tiny.preprocess(images))
    for hook in hooks:
        hook.remove()
    expected = [tokens[:, 1:].mean(1)]
    for block in outputs:
        expected += [block[:, 0], block[:, 1:].mean(1)]
    torch.testing.assert_close(tiny(images)[:, 64:], torch.cat(expected, 1))


def test_a_folded_head_is_a_plain_linear_layer_on_the_raw_features():
    features = 5 + 3 * torch.randn(5000, 4)  # taken in in two parts
    mean, deviation = standardization(features)
    head = nn.Linear(4, 3)
    expected = head((features - mean) / deviation)
    plain = folded(head, mean, deviation)
    assert type(plain) is nn.Linear
    torch.testing.assert_close(plain(features), expected)


def test_number_format_of_the_encoder_is_not_that_of_its_features(tiny):
    half = random_encoder("test_vit", dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    features = half(noise(2))
    assert features.dtype == torch.float32
    assert F.cosine_similarity(features, tiny(noise(2))).min() > 0.99


def test_probe_is_the_head_on_the_features(tiny):
    probe = Probe(tiny, 5)
    expected = probe.head(tiny(noise(2))[:, :64].clone())
    torch.testing.assert_close(probe(noise(2)), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert probe(noise(2)).dtype == torch.float32


def test_random_weights_come_from_the_seed(tiny):
    assert random_encoder("test_vit").weights_sha256 == tiny.weights_sha256
    assert random_encoder("test_vit", seed=1).weights_sha256 != tiny.weights_sha256


def test_label_and_folder_name_the_encoder(encoder):
    assert encoder.label == f"{encoder.name} [{encoder.weights_sha256[:12]}]" and len(encoder.weights_sha256) == 64
    assert encoder.folder == {"vit_tiny_patch16_224": "vit"}.get(encoder.name, encoder.name)
    assert encoder.source == "random weights"


# ---- preprocessing belongs to the weights

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("name", "size", "statistics"),
    [("vit_tiny_patch16_224", 224, HALF), ("deit_tiny_patch16_224", 224, IMAGENET), ("test_vit", 160, HALF)],
)
def test_preprocessing_is_the_models_own(name, size, statistics):
    encoder = random_encoder(name)
    white_and_black = torch.stack([torch.full((3, 32, 32), v, dtype=torch.uint8) for v in (255, 0)])
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in statistics)
    x = encoder.preprocess(white_and_black)
    assert x.shape == (2, 3, size, size) and x.dtype == torch.float32
    torch.testing.assert_close(x[0], ((1 - mean) / std).expand(3, size, size))
    torch.testing.assert_close(x[1], ((0 - mean) / std).expand(3, size, size))


def test_preprocessing_is_timms_transform_without_the_crop(encoder):
    data = timm.data.resolve_model_data_config(encoder.backbone) | {"crop_pct": 1.0}
    transform = timm.data.create_transform(**data, is_training=False)
    images = noise(2)
    expected = torch.stack([transform(to_pil_image(image)) for image in images])
    off = (encoder.preprocess(images) - expected).abs() * 255 * encoder.std.min()  # in grey levels
    # Both round to uint8 after each of two passes, PIL in fixed point: on noise, a few pixels are two levels off.
    assert off.max() <= 2.02 and off.mean() < 0.02


@pytest.mark.parametrize(
    ("wanted", "near"),
    [
        ("vit_tiny_patch16_225", "vit_tiny_patch16_224"),
        ("vit_tinny_patch16_224", "vit_tiny_patch16_224"),
        ("vit_tiny_patch16_224.augreg_in21k_ft_in2k", "vit_tiny_patch16_224.augreg_in21k_ft_in1k"),
        ("resnet5", "resnet50"),
    ],
)
def test_unknown_encoder_gets_near_names(wanted, near):
    with pytest.raises(Hw1Error, match=f"^timm has no model '{wanted}': did you mean .*\\b{near}\\b.*\\?$"):
        random_encoder(wanted)
