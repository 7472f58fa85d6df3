"""Our affine maps against Keras's own ImageDataGenerator, and batches as functions of a place."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.backend import import_keras

keras = import_keras()

from keras.src.legacy.preprocessing.image import ImageDataGenerator  # noqa: E402

from pipeline.io.hdf5_dataset import open_split  # noqa: E402
from pipeline.io.hdf5_generator import HDF5Generator  # noqa: E402
from pipeline.preprocessing.affine import (  # noqa: E402
    draw_matrices,
    warp_images,
)
from pipeline.preprocessing.images import resize_image, resize_images  # noqa: E402
from pipeline.randomness import BatchDraws  # noqa: E402
from pipeline.recipe import Augmentation  # noqa: E402

PUBLISHED = Augmentation(rotation=30, shift=0.2, shear=0.2, zoom=0.2)
EVERYTHING = {
    "shuffle": True,
    "augmentation": replace(
        PUBLISHED, flip="random", trivial_augment=True, cutmix=1.0, mixed_share=0.8
    ),
}
WIDE = Augmentation(rotation=90, shift=0.3, shear=40, zoom=0.5)


def photographs(count: int) -> np.ndarray:
    """Real images where there are any; else scikit-learn's two photographs, cut up."""
    root = os.environ.get("TINY_IMAGENET")
    if root:
        paths = sorted(Path(root).glob("train/*/images/*.JPEG"))[:: 10_000 // count][:count]
        return np.stack([cv2.imread(str(path)) for path in paths])
    from sklearn.datasets import load_sample_images

    tiles = [
        cv2.resize(image[y : y + 128, x : x + 128], (64, 64), interpolation=cv2.INTER_AREA)
        for image in load_sample_images().images
        for y in range(0, 300, 60)
        for x in range(0, 512, 60)
    ]
    return np.stack(tiles[:count])


class RecordedDraws(BatchDraws):
    """Keeps what it draws: rotation, shift and shear, and by how much to zoom."""

    def uniform(self, low: float, high: float) -> np.ndarray:
        self.drawn = [*getattr(self, "drawn", []), super().uniform(low, high)]
        return self.drawn[-1]


@pytest.mark.parametrize("ranges", [PUBLISHED, WIDE])
def test_pixels_move_as_keras_moves_them(ranges: Augmentation) -> None:
    images = photographs(60)
    stream = np.random.default_rng(3)
    mirror = stream.random(len(images)) < 0.5
    draws = RecordedDraws(stream, len(images))
    ours = warp_images(images.copy(), draw_matrices(ranges, mirror, draws, 64))
    rotation, shift_x, shift_y, shear, zoom_x, zoom_y = draws.drawn
    generator = ImageDataGenerator(fill_mode="nearest", interpolation_order=1)
    distances = []
    for index, image in enumerate(images):
        theirs = generator.apply_transform(
            image.astype(np.float32),
            {
                "theta": rotation[index],
                "tx": 64 * shift_x[index],
                "ty": 64 * shift_y[index],
                "shear": shear[index],
                "zx": 1 + zoom_x[index],
                "zy": 1 + zoom_y[index],
                "flip_horizontal": bool(mirror[index]),
            },
        )
        difference = np.abs(ours[index] - theirs)
        assert difference.max() < 0.51  # rounding
        distances.append(np.abs(image - theirs).mean())
        assert distances[-1] > 1
    assert np.mean(distances) > 5  # they did move


def test_parameters_fill_their_ranges() -> None:
    draws = RecordedDraws(np.random.default_rng(0), 20_000)
    draw_matrices(PUBLISHED, np.zeros(20_000, bool), draws, 64)
    for values, reach in zip(draws.drawn, (30, 0.2, 0.2, 0.2, 0.2, 0.2), strict=True):
        assert -reach <= values.min() < -0.98 * reach
        assert reach >= values.max() > 0.98 * reach
        assert abs(values.mean()) < 0.04 * reach
    *_, zoom_x, zoom_y = draws.drawn
    assert abs(np.corrcoef(zoom_x, zoom_y)[0, 1]) < 0.05


@pytest.mark.parametrize("side", [33, 64, 1024])
def test_mirrored_pixels_are_exact(side: int) -> None:
    images = np.random.default_rng(1).integers(256, size=(5, side, side, 3), dtype=np.uint8)
    draws = BatchDraws(np.random.default_rng(1), 5)
    mirror = draw_matrices(Augmentation(), np.ones(5, bool), draws, side)
    moved = warp_images(images.copy(), mirror)
    assert np.array_equal(moved, images[:, :, ::-1])


def batches(data: HDF5Generator, epoch: int) -> list[bytes]:
    data.begin_epoch(epoch)
    made = (data[step] for step in range(len(data)))
    return [images.tobytes() + labels.tobytes() for images, labels in made]


def test_batch_is_a_function_of_seed_epoch_and_step(made_hdf5: Path) -> None:
    train = open_split(made_hdf5, "train")
    first, second = (HDF5Generator(train, 10, seed=1, **EVERYTHING) for _ in range(2))
    straight = {epoch: batches(first, epoch) for epoch in (1, 2)}
    assert batches(second, 2) == straight[2]
    second.begin_epoch(1)
    images, labels = second[3]
    assert images.tobytes() + labels.tobytes() == straight[1][3]


def test_batches_in_another_order_are_made_once(
    made_hdf5: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by ``fit`` where it shuffles; the ones that follow are not prepared then."""
    made, make = [], HDF5Generator._make_batch

    def count(batches: HDF5Generator, epoch: object, step: int) -> tuple[np.ndarray, ...]:
        made.append(step)
        return make(batches, epoch, step)

    monkeypatch.setattr(HDF5Generator, "_make_batch", count)
    batches = HDF5Generator(open_split(made_hdf5, "train"), 4)
    for step in range(11, -1, -1):
        assert len(batches[step][0]) == 4
    assert sorted(set(made)) == list(range(12))
    assert len(made) <= 12 + 4  # those after the first of the epoch


@pytest.mark.parametrize(
    "changes",
    [
        {"rotation": 30},
        {"shift": 0.2},
        {"shear": 30},
        {"zoom": 0.3},
        {"flip": "random"},
        {"flip": "alternating"},
        {"trivial_augment": True},
        {"cutmix": 1.0},
    ],
)
def test_each_value_of_an_augmentation_changes_images(changes: dict, made_hdf5: Path) -> None:
    train = open_split(made_hdf5, "train")
    changed = HDF5Generator(train, 20, augmentation=Augmentation(**changes))
    assert batches(changed, 1) != batches(HDF5Generator(train, 20), 1)


@pytest.mark.parametrize("kept", EVERYTHING)
def test_epochs_and_seeds_differ(kept: str, made_hdf5: Path) -> None:
    """In the order alone, and in the augmentation alone."""
    train = open_split(made_hdf5, "train")
    data = HDF5Generator(train, 10, seed=1, **{kept: EVERYTHING[kept]})
    other = HDF5Generator(train, 10, seed=2, **{kept: EVERYTHING[kept]})
    first = batches(data, 1)
    assert batches(data, 2) != first
    assert batches(other, 1) != first


@pytest.mark.parametrize("threads", [1, 7])
def test_thread_count_changes_no_batch(
    threads: int, made_hdf5: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = open_split(made_hdf5, "train")
    resized = {**EVERYTHING, "image_size": lambda epoch: 48}
    expected = batches(HDF5Generator(train, 5, seed=1, **resized), 2)
    monkeypatch.setattr("pipeline.io.hdf5_generator.THREADS", threads)
    monkeypatch.setattr("pipeline.io.hdf5_generator.POOL", ThreadPoolExecutor(threads))
    assert batches(HDF5Generator(train, 5, seed=1, **resized), 2) == expected


@pytest.mark.parametrize("size", [20, 33, 48, 64, 70])
def test_images_are_resized_one_by_one(size: int) -> None:
    images = np.random.default_rng(1).integers(256, size=(64, 64, 64, 3), dtype=np.uint8)
    by = cv2.INTER_LINEAR if size > 64 else cv2.INTER_AREA
    one_by_one = np.stack([cv2.resize(image, (size, size), interpolation=by) for image in images])
    assert np.array_equal(resize_image(images[0], size), one_by_one[0])
    assert np.array_equal(resize_images(images, size), one_by_one)


def test_epoch_is_a_shuffle_of_all_images(made_hdf5: Path) -> None:
    train = open_split(made_hdf5, "train")
    data = HDF5Generator(train, 10, shuffle=True)
    images, labels = (np.concatenate(part) for part in zip(*data, strict=True))
    assert images.dtype == np.uint8
    assert labels.dtype == np.float32
    order = sorted(range(len(train)), key=lambda row: train.images[row].tobytes())
    ours = sorted(range(len(train)), key=lambda row: images[row].tobytes())
    assert np.array_equal(images[ours], train.images[order])
    assert np.array_equal(labels[ours].argmax(axis=1), train.labels[order])
    assert (labels.sum(axis=1) == 1).all()
    assert not np.array_equal(images, train.images)


def test_alternating_flips_show_both_sides_in_two_epochs(made_hdf5: Path) -> None:
    train = open_split(made_hdf5, "train")
    data = HDF5Generator(train, len(train), augmentation=Augmentation(flip="alternating"))
    seen = []
    for epoch in (1, 2):
        data.begin_epoch(epoch)
        images = data[0][0]
        plain = [np.array_equal(a, b) for a, b in zip(images, train.images, strict=True)]
        mirrored = images[:, :, ::-1]
        turned = [np.array_equal(a, b) for a, b in zip(mirrored, train.images, strict=True)]
        assert [not p for p in plain] == turned
        seen.append(plain)
    assert [not p for p in seen[0]] == seen[1]
    assert 0 < sum(seen[0]) < len(train)


def test_smaller_images_are_averages(made_hdf5: Path) -> None:
    val = open_split(made_hdf5, "val")
    images, _ = HDF5Generator(val, 4, image_size=lambda epoch: 32)[0]
    expected = val.images[:4].reshape(4, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    assert images.shape == (4, 32, 32, 3)
    assert np.abs(images - expected).max() <= 0.5


def test_a_share_of_the_batches_is_mixed_from_an_epoch_on(made_hdf5: Path) -> None:
    augmentation = Augmentation(cutmix=1.0, mixed_share=0.3, mixed_from=3)
    train = open_split(made_hdf5, "train")
    data = HDF5Generator(train, 4, seed=1, shuffle=True, augmentation=augmentation)
    mixed = []
    for epoch in range(1, 33):
        data.begin_epoch(epoch)
        mixed.append([len(np.unique(labels)) > 2 for _, labels in data])
    assert not np.any(mixed[:2])
    assert np.std(mixed[2:], axis=1).max() > 0
    assert 0.2 < np.mean(mixed[2:]) < 0.36  # of 360; a few mix an image with one of its class


@pytest.mark.parametrize("last", [8, 7])
@pytest.mark.parametrize("processes", [1, 2, 5])
def test_shards_make_up_the_batch(processes: int, last: int, made_hdf5: Path) -> None:
    """Also the ``last`` batch, padded; CutMix pairs the copies of an odd one otherwise."""
    train = open_split(made_hdf5, "train")
    train = replace(train, images=train.images[: 40 + last], labels=train.labels[: 40 + last])
    size = 20 // processes
    shards = [range(first, first + size) for first in range(0, 20, size)]

    def made(shard: range | None) -> list[tuple[np.ndarray, ...]]:
        data = HDF5Generator(
            train, 20, seed=3, image_size=lambda epoch: 48, shard=shard, **EVERYTHING
        )
        data.begin_epoch(2)
        return [data[step] for step in range(len(data))]

    for whole, *pieces in zip(made(None), *map(made, shards), strict=True):
        images, labels, weights = (np.concatenate(part) for part in zip(*pieces, strict=True))
        count = len(whole[0])
        assert len(images) == len(labels) == len(weights) == 20
        assert np.array_equal(images[:count], whole[0])
        assert np.allclose(labels[:count], whole[1])
        assert (weights == (np.arange(20) < count)).all()
        if count % 2 == 0:
            assert np.array_equal(images[count:], np.resize(whole[0], images.shape)[count:])
