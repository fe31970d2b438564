"""Builds a folder of labelled images to try "Your own images" with: `python docs/example_folders.py digits TARGET`.

digits   scikit-learn's 1,797 grey digits of 8×8 pixels, as class folders only
fashion  Fashion-MNIST, 60,000 + 10,000 grey images of 28×28 pixels, from Debian's package dataset-fashion-mnist
photos   crops of mixed sizes, grey and colour, from 18 photographs that scikit-learn and scikit-image bring along
faces    200 grey pictures of 25×25 pixels from scikit-image, half of them faces, with wrong labels and copies put in
emoji    1,906 emojis of 64×64 pixels, each as Google and as Twitter draws it, from two npm packages
"""

import argparse
import gzip
import io
import json
import os
import sys
import tarfile
import tempfile
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_digits, load_sample_image

FASHION = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts it
GARMENTS = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle-boot"]

# In scikit-image's wheel, so that nothing is downloaded; without its clock and cell, which are plain grey at the right.
GREY = ["brick", "camera", "coins", "grass", "gravel", "moon", "page", "text"]
COLOUR = ["astronaut", "chelsea", "coffee", "hubble_deep_field", "immunohistochemistry", "retina", "rocket"]
TRAIN_SHARE = 0.7  # of a photograph's width
CROPS = {"train": (200, 20), "test": (40, 10)}  # of the largest and of the smallest photograph
SIDES = (96, 256)  # of a crop, in pixels

FACES = ("face", "other")
SWAPPED = {"train": 4, "test": 2}  # labels of each class

MAKERS = ("google", "twitter")
SEED = 0


def save(pixels: np.ndarray, path: Path) -> None:
    """Write one image, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def build_digits(folder: Path) -> None:
    """<digit>/<index>.png"""
    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # they have 17 shades
    for index, (pixels, label) in enumerate(zip(grey, digits.target, strict=True)):
        save(pixels, folder / str(label) / f"{index:04}.png")


def build_fashion(folder: Path, source: Path) -> None:
    """train/<garment>/<index>.png and test/<garment>/<index>.png"""
    for part, name in (("train", "train"), ("test", "t10k")):
        images = read_idx(source / f"{name}-images-idx3-ubyte.gz")
        labels = read_idx(source / f"{name}-labels-idx1-ubyte.gz")
        for index, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            save(pixels, folder / part / GARMENTS[label] / f"{index:05}.png")


def read_idx(path: Path) -> np.ndarray:
    """An array of bytes in LeCun's format: two zeros, type, number of axes, their lengths, the values."""
    if not path.is_file():
        sys.exit(
            f"There is no {path}: install Debian's package (sudo apt-get install dataset-fashion-mnist), "
            "or name the folder with its four .gz files by --source."
        )
    data = gzip.decompress(path.read_bytes())
    axes = data[3]
    shape = np.frombuffer(data, ">u4", count=axes, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def build_photos(folder: Path) -> None:
    """train/<photograph>/<index>.png or .jpg from the left of each photograph, test/ likewise from the rest.

    The largest photograph gets the most crops, the smallest the fewest. Crops of one side overlap: validation images,
    which are taken from train/, are easier than those in test/.
    """
    photos = load_photos()
    names = sorted(photos, key=lambda name: np.prod(photos[name].shape[:2]), reverse=True)
    for part, (most, fewest) in CROPS.items():
        counts = np.rint(np.geomspace(most, fewest, len(names))).astype(int)
        for row, (name, count) in enumerate(zip(names, counts, strict=True)):
            rng = np.random.default_rng([SEED, row, part == "test"])
            left, right = np.split(photos[name], [round(TRAIN_SHARE * photos[name].shape[1])], axis=1)
            side = left if part == "train" else right
            for index in range(count):
                kind = rng.choice(["png", "jpg"])
                save(crop(side, rng), folder / part / name / f"{index:03}.{kind}")


def load_photos() -> dict[str, np.ndarray]:
    """The photographs by name, grey or RGB."""
    data = scikit_image()
    photos = {name: getattr(data, name)() for name in GREY + COLOUR}
    photos["motorcycle"] = data.stereo_motorcycle()[0]  # the left eye's
    return photos | {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}


def scikit_image() -> ModuleType:
    """Its pictures; those used here are in its wheel."""
    try:
        from skimage import data
    except ImportError:
        sys.exit(f"This folder needs scikit-image: {sys.executable} -m pip install scikit-image installs it.")
    return data


def crop(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A rectangle of random size and place."""
    height, width = (rng.integers(SIDES[0], min(SIDES[1], side), endpoint=True) for side in photo.shape[:2])
    top, left = (rng.integers(room, endpoint=True) for room in (photo.shape[0] - height, photo.shape[1] - width))
    return photo[top : top + height, left : left + width]


def build_faces(folder: Path) -> None:
    """train/<face|other>/<index>.png, 70 of each class, and test/ likewise, 30 of each.

    The index is scikit-image's, below 100 for faces: where folder and index disagree, the label has been swapped.
    Altered copies of test images lie in train/ as <index>_<how>.png.
    """
    pieces = np.rint(scikit_image().lfw_subset() * 255).astype(np.uint8)
    rng = np.random.default_rng(SEED)
    for label, other in ((0, 1), (1, 0)):
        indices = rng.permutation(100) + 100 * label
        for part, own in (("train", indices[:70]), ("test", indices[70:])):
            for place, index in enumerate(own):
                name = FACES[other if place < SWAPPED[part] else label]
                save(pieces[index], folder / part / name / f"{index:03}.png")
        for index, (how, alter) in zip(indices[-len(ALTERED) :], ALTERED.items(), strict=True):
            altered = np.asarray(alter(Image.fromarray(pieces[index])))
            save(altered, folder / "train" / FACES[label] / f"{index:03}_{how}.png")


def recompressed(image: Image.Image) -> Image.Image:
    """What is left of it after JPEG at quality 50."""
    file = io.BytesIO()
    image.save(file, "jpeg", quality=50)
    return Image.open(file)


ALTERED = {
    "same": lambda image: image,
    "mirrored": ImageOps.mirror,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "recompressed": recompressed,
    "cropped": lambda image: image.crop((1, 1, 24, 24)),
}


def build_emoji(folder: Path, source: Path) -> None:
    """<category>/<code points>_<maker>.png, 64×64 pixels, for all emojis that both have drawn."""
    archives = {maker: source / f"emoji-datasource-{maker}-16.0.0.tgz" for maker in MAKERS}
    for maker, path in archives.items():
        if not path.is_file():
            package = path.stem.removesuffix("-16.0.0") + "@16.0.0"
            sys.exit(f"There is no {path}: fetch it (npm pack {package}), or name the folder it is in by --source.")
        with tarfile.open(path) as archive:
            emojis = json.load(archive.extractfile("package/emoji.json"))
            for emoji in emojis:
                if emoji["category"] != "Component" and all(emoji[f"has_img_{name}"] for name in MAKERS):
                    target = folder / emoji["category"] / f"{emoji['image'].removesuffix('.png')}_{maker}.png"
                    target.parent.mkdir(parents=True, exist_ok=True)
                    picture = archive.extractfile(f"package/img/{maker}/64/{emoji['image']}")
                    target.write_bytes(picture.read())


def main() -> None:
    """Build beside the target and rename at the end: what has the target's name is complete."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("example", choices=("digits", "fashion", "photos", "faces", "emoji"))
    parser.add_argument("target", type=Path, help="the folder to create")
    parser.add_argument(
        "--source", type=Path, help="fashion: folder with the package's .gz files; emoji: with the .tgz"
    )
    args = parser.parse_args()
    if os.path.lexists(args.target):
        sys.exit(f"{args.target} exists already: remove it, or name another folder.")
    build = {
        "digits": build_digits,
        "fashion": partial(build_fashion, source=args.source or FASHION),
        "photos": build_photos,
        "faces": build_faces,
        "emoji": partial(build_emoji, source=args.source or Path(".")),
    }[args.example]
    try:
        args.target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=args.target.parent, prefix=f".{args.target.name}-") as scratch:
            build(Path(scratch, "new"))
            Path(scratch, "new").rename(args.target)
    except (OSError, EOFError, tarfile.TarError) as error:
        sys.exit(f"{args.target} was not built: {error}.")


if __name__ == "__main__":
    main()
