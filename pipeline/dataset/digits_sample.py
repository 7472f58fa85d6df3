"""A small data set in Tiny ImageNet's layout, for trying everything without a download.

Scikit-learn ships 1,797 handwritten digits of 8x8 pixels (UCI's optical recognition of
handwritten digits, test part). Here they become 64x64 JPEGs with class ids and words.
"""

import shutil
from pathlib import Path

import cv2
import numpy as np

from pipeline.errors import UserError
from pipeline.io.files import explain_write_errors, move_into_place, temporary_path
from pipeline.preprocessing.images import encode_jpeg
from pipeline.randomness import random_stream

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CLASSES = {f"n{digit:08d}": word for digit, word in enumerate(WORDS)}
WNIDS = "".join(f"{class_id}\n" for class_id in CLASSES)
VAL_IMAGES, TEST_IMAGES = 25, 5
"""A class; the rest, 144 to 153, are for training."""
MAX_GREY = 16
"""The digits' grey levels run from 0 to this."""


def write_sample(root: Path, size: int, seed: int) -> None:
    """Write the digits as a data set at ``root``, whole or not at all.

    Args:
        root: A folder that does not exist yet, or a sample written earlier, which is left alone.
        size: The image size in pixels.
        seed: Decides which digits are for validation and testing.

    Raises:
        UserError: ``root`` is something else, or cannot be written.
    """
    wnids = root / "wnids.txt"
    if wnids.is_file() and wnids.read_bytes().split() == WNIDS.encode().split():
        return
    if root.exists():
        raise UserError(f"{root} is there and is not a sample; name a new folder with -d")
    with explain_write_errors(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(root, root.name)
        temporary.mkdir()
        try:
            _write_layout(temporary, size, seed)
            move_into_place(temporary, root)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _write_layout(root: Path, size: int, seed: int) -> None:
    from sklearn.datasets import load_digits  # takes a second, and only the sample needs it

    digits = load_digits()
    val, test = root / "val" / "images", root / "test" / "images"
    val.mkdir(parents=True)
    test.mkdir(parents=True)
    annotations, test_number = [], 0
    for digit, class_id in enumerate(CLASSES):
        train = root / "train" / class_id / "images"
        train.mkdir(parents=True)
        images = digits.images[digits.target == digit]
        order = random_stream(seed, "sample", digit).permutation(len(images))
        for place, image in enumerate(_to_jpeg(images[index], size) for index in order):
            if place < VAL_IMAGES:
                name = f"val_{len(annotations)}.JPEG"
                annotations.append(f"{name}\t{class_id}\t0\t0\t{size - 1}\t{size - 1}\n")
                (val / name).write_bytes(image)
            elif place < VAL_IMAGES + TEST_IMAGES:
                (test / f"test_{test_number}.JPEG").write_bytes(image)
                test_number += 1
            else:
                number = place - VAL_IMAGES - TEST_IMAGES
                (train / f"{class_id}_{number}.JPEG").write_bytes(image)
    words = "".join(f"{class_id}\t{word}\n" for class_id, word in CLASSES.items())
    (root / "val" / "val_annotations.txt").write_text("".join(annotations))
    (root / "words.txt").write_text(words)
    (root / "wnids.txt").write_text(WNIDS)


def _to_jpeg(image: np.ndarray, size: int) -> bytes:
    grey = np.uint8(np.round(image * (255 / MAX_GREY)))
    large = cv2.resize(grey, (size, size), interpolation=cv2.INTER_CUBIC)
    return encode_jpeg(cv2.cvtColor(large, cv2.COLOR_GRAY2RGB))
