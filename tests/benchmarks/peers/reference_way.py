"""How the original scripts went about it: images one by one, in float64, in Python."""

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path

import cv2
import h5py
import numpy as np

BUFFER = 1000
"""Images gathered before each write."""


def build(images: Sequence[tuple[str, int]], path: Path, classes: int) -> dict[str, float]:
    """Write (file, label) pairs to an HDF5 file of float64; return the channel means."""
    path.unlink(missing_ok=True)
    means = []
    with h5py.File(path, "w") as file:
        pixels = file.create_dataset("images", (len(images), 64, 64, 3), "float")
        labels = file.create_dataset("labels", (len(images),), "int")
        file.attrs["classes"] = classes
        for start in range(0, len(images), BUFFER):
            buffer, numbers = [], []
            for name, label in images[start : start + BUFFER]:
                image = cv2.resize(cv2.imread(name), (64, 64))
                means.append(cv2.mean(image)[:3])
                buffer.append(image)
                numbers.append(label)
            pixels[start : start + len(buffer)] = buffer
            labels[start : start + len(buffer)] = numbers
    return dict(zip("BGR", np.mean(means, axis=0).tolist(), strict=True))


def building(images: Sequence[tuple[str, int]], path: Path, classes: int) -> Callable[[], int]:
    """Return a round that builds."""

    def do_round() -> int:
        build(images, path, classes)
        return len(images)

    return do_round


def batching(path: Path, count: int, augment: bool) -> Callable[[], int]:
    """Return a round that makes ``count`` batches of 64, each image by itself."""
    made = _batches(path, augment)

    def do_round() -> int:
        return sum(len(images) for images, _ in islice(made, count))

    return do_round


def _batches(path: Path, augment: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    from pipeline.backend import import_keras

    keras = import_keras()
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    moving = ImageDataGenerator(
        rotation_range=30,
        width_shift_range=0.2,
        height_shift_range=0.2,
        shear_range=0.2,
        zoom_range=0.2,
        horizontal_flip=True,
        fill_mode="nearest",
    )
    file = h5py.File(path)
    classes = file.attrs["classes"]
    for start in cycle(range(0, len(file["labels"]) - 64, 64)):
        labels = keras.utils.to_categorical(file["labels"][start : start + 64], classes)
        images = []
        for image in file["images"][start : start + 64]:
            blue, green, red = cv2.split(image.astype("float32"))
            centred = cv2.merge([blue - 101.4, green - 114.3, red - 122.5])
            images.append(keras.utils.img_to_array(centred))
        pixels = np.array(images)
        yield next(moving.flow(pixels, labels, batch_size=64)) if augment else (pixels, labels)
