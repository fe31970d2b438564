"""What people call a timm model: `deit_tiny_patch16_224.fb_in1k` is DeiT-Tiny in titles, figures and sentences."""

import re
from collections.abc import Sequence

FAMILIES = {
    "aimv2": "AIMv2",
    "beit": "BEiT",
    "beit3": "BEiT3",
    "beitv2": "BEiTv2",
    "cait": "CaiT",
    "convnext": "ConvNeXt",
    "convnextv2": "ConvNeXtV2",
    "deit": "DeiT",
    "deit3": "DeiT3",
    "densenet": "DenseNet",
    "edgenext": "EdgeNeXt",
    "efficientnet": "EfficientNet",
    "efficientnetv2": "EfficientNetV2",
    "efficientvit": "EfficientViT",
    "eva": "EVA",
    "eva02": "EVA-02",
    "fastvit": "FastViT",
    "hiera": "Hiera",
    "mobilenetv2": "MobileNetV2",
    "mobilenetv3": "MobileNetV3",
    "mobilevit": "MobileViT",
    "nfnet": "NFNet",
    "repvgg": "RepVGG",
    "resnet": "ResNet",
    "resnetv2": "ResNetV2",
    "resnext": "ResNeXt",
    "seresnet": "SE-ResNet",
    "swin": "Swin",
    "swinv2": "SwinV2",
    "vgg": "VGG",
    "vit": "ViT",
    "wide_resnet": "Wide ResNet",
}
FAMILY = re.compile(rf"(?:tf_|dm_)?({'|'.join(sorted(FAMILIES, key=len, reverse=True))})(?=_|\d|$)")
SIZES = ["atto", "femto", "pico", "nano", "tiny", "xsmall", "small", "medium", "base", "large", "xlarge", "xxlarge"]
SIZES += ["huge", "giant", "gigantic", "so400m", "lite"]
# How the weights came to be, where people say it with the name: a word of the architecture or of the tag.
TRAININGS = {"bit": "BiT", "clip": "CLIP", "dino": "DINO", "dinov2": "DINOv2", "dinov3": "DINOv3", "fcmae": "FCMAE"}
TRAININGS |= {"mae": "MAE", "siglip": "SigLIP", "distilled": "distilled"}


def encoder_title(name: str) -> str:
    """What people call a timm model; as timm calls it where a word of its architecture is not understood.

    Left out are who ported the weights (`tf_`), sizes of input and window, and all of the tag but the kind of training:
    see `encoder_titles` where this makes two the same.
    """
    architecture, _, tag = name.partition(".")
    found = FAMILY.match(architecture)
    if not found:
        return name
    family = found[1]
    words = architecture[found.end() :].strip("_").split("_")
    title = FAMILIES[family]
    for position, word in enumerate(words):
        if word in TRAININGS or re.fullmatch(r"window\d+", word):
            continue
        if word.rstrip("0123456789") in SIZES:
            title += "-" + re.sub("^x*.", lambda start: start[0].upper(), word)
        elif patch := re.fullmatch(r"patch(\d+)", word):
            title += "" if family in ("deit", "swin") else f"/{patch[1]}"  # the two have but one
        elif re.fullmatch(r"[a-z]{1,3}\d{0,2}|\d+b", word):
            title += f"-{word.upper()}"
        elif family.startswith("mobilenet") and re.fullmatch(r"\d{3}", word):
            title += "" if word == "100" else f" {int(word) / 100:g}×"  # width
        elif position == 0 or not re.fullmatch(r"\d{3}", word):  # depth, not the input's size
            if not re.fullmatch(r"\d+(x\d+)?[a-z]*", word):
                return name
            title += f"-{word}"
    known = words if "ft" in tag.split("_") else [*words, *tag.split("_")]  # ft: finetuned since
    trainings = dict.fromkeys(word for word in known if word in TRAININGS)
    return " ".join([title, *(TRAININGS[word] for word in trainings)])


def encoder_titles(names: Sequence[str]) -> list[str]:
    """Titles of a run's encoders, all different: as timm calls them where people's name for two is the same."""
    titles = [encoder_title(name) for name in names]
    return [title if titles.count(title) == 1 else name for name, title in zip(names, titles, strict=True)]
