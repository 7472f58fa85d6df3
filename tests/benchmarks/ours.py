"""What this project does, as rounds of a contest."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from contest import Round

from config import setup_config as config
from pipeline.recipe import Augmentation, Network


def building(data_set: Path, output: Path) -> Round:
    """Build from a folder or a zip."""
    from pipeline.dataset.builder import BuildSettings, build_data_set
    from pipeline.dataset.image_source import open_source

    settings = BuildSettings(config.IMAGE_SIZE, config.TEST_IMAGES_PER_CLASS, config.SEED)

    def do_round() -> int:
        shutil.rmtree(output, ignore_errors=True)
        report = build_data_set(open_source(data_set), output, settings)
        return sum(report.images.values())

    return do_round


def unpacking_and_building(archive: Path, scratch: Path) -> Round:
    """Unpack a zip, and build from the folder."""

    def do_round() -> int:
        folder = Path(tempfile.mkdtemp(dir=scratch))
        shutil.unpack_archive(archive, folder)
        return building(folder, scratch / "from-unpacked")()

    return do_round


def decoding(images: Sequence[tuple[str, int]]) -> Round:
    """Decode files that lie in memory, on all cores, and do nothing with them."""
    from pipeline.preprocessing.images import decode_image

    files = [Path(name).read_bytes() for name, _ in images]
    cores = os.cpu_count() or 1
    chunks = [files[start : start + 256] for start in range(0, len(files), 256)]

    def decode(chunk: Sequence[bytes]) -> None:
        for data in chunk:
            decode_image(data)

    def do_round() -> int:
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(decode, chunks))
        return len(files)

    return do_round


def decoding_for_a_build(data_set: Path, threads: int) -> Round:
    """Decode in order, as a build does, and write nothing."""
    from pipeline.dataset import decoding
    from pipeline.dataset.image_source import open_source
    from pipeline.dataset.tiny_imagenet import read_labelled_images

    decoding.cores = lambda: threads
    decoding.MAX_THREADS = threads
    source = open_source(data_set)
    names = [image.name for image in read_labelled_images(source).train]

    def do_round() -> int:
        chunks = decoding.decode_in_order(source, names, config.IMAGE_SIZE)
        return sum(len(files) for _, files in chunks)

    return do_round


def batching(hdf5: Path, count: int, recipe: str, cores: int | None = None) -> Round:
    """Make ``count`` shuffled batches of 64, augmented as ``recipe`` says; "" leaves them."""
    if cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    from pipeline.backend import import_keras

    import_keras()
    from pipeline.io.hdf5_dataset import open_split
    from pipeline.io.hdf5_generator import HDF5Generator

    augmentation = config.RECIPES[recipe].augmentation if recipe else Augmentation()
    data = HDF5Generator(
        open_split(hdf5, "train"),
        64,
        shuffle=True,
        augmentation=replace(augmentation, mixed_from=1),
    )
    steps = len(data) - 1

    def do_round() -> int:
        return sum(len(data[step % steps][0]) for step in range(count))

    return do_round


def training_on_ready_batch(hdf5: Path, size: int, batch: int, steps: int) -> Round:
    """Do as ``training``, on one batch that lies ready."""
    from pipeline.backend import import_keras

    import_keras()
    from pipeline.io.hdf5_generator import HDF5Generator

    make = HDF5Generator.__getitem__
    made = {}
    HDF5Generator.__getitem__ = lambda self, step: made.get(0) or made.setdefault(0, make(self, 0))
    return training(hdf5, size, batch, steps)


def training_without_fused_norm(hdf5: Path, size: int, batch: int, steps: int) -> Round:
    """Do as ``training``, by Keras's own batch norm."""
    return training(hdf5, size, batch, steps, fused=False)


def training(hdf5: Path, size: int, batch: int, steps: int, *, fused: bool = True) -> Round:
    """Train by SGD, else as recipe "quick", by ``fit`` over batches from the loader."""
    from pipeline.backend import import_keras

    import_keras()
    from pipeline.io.hdf5_dataset import open_split
    from pipeline.io.hdf5_generator import HDF5Generator
    from pipeline.nn.fused_norm import fuse_batch_norms
    from pipeline.nn.googlenet import googlenet
    from pipeline.nn.optimizers import compile_model

    recipe = config.RECIPES["quick"].replaced(
        {"network.dtype": "float32", "network.stem": "paper", "optimizer.name": "sgd"}
    )
    split = open_split(hdf5, "train")
    split = replace(
        split, images=split.images[: steps * batch], labels=split.labels[: steps * batch]
    )
    augmentation = recipe.augmentation
    data = HDF5Generator(
        split, batch, shuffle=True, image_size=lambda _: size, augmentation=augmentation
    )
    network = googlenet(recipe.network, len(split.classes), means=(122.5, 114.3, 101.4))
    if fused:
        fuse_batch_norms(network)
    compile_model(network, recipe, steps_per_epoch=1000)

    def do_round() -> int:
        network.fit(data.for_fit(), shuffle=False, verbose=0)
        return steps * batch

    return do_round


def predicting(stem: str, size: int, batch: int, steps: int) -> Round:
    """Predict one batch of noise again and again, as model_eval.py does."""
    from pipeline.backend import import_keras

    import_keras()
    from pipeline.evaluation.metrics import Predictor
    from pipeline.nn.googlenet import googlenet

    network: Any = googlenet(Network(stem=stem, dropout=0.0), 200, means=(120.0,) * 3)
    images = np.random.default_rng(0).integers(256, size=(batch, size, size, 3), dtype=np.uint8)
    predictor = Predictor(network, batch)

    def do_round() -> int:
        for _ in range(steps):
            predictor(images)
        return steps * batch

    return do_round
