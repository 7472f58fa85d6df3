"""Turn a data set into three HDF5 files and the channel means."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from pipeline.dataset.decoding import decode_in_order, find_undecodable
from pipeline.dataset.image_source import ImageSource
from pipeline.dataset.tiny_imagenet import LabelledImage, LabelledImages, read_labelled_images
from pipeline.errors import UserError
from pipeline.io.files import atomic_writes, folder_lock, refusal_to_read
from pipeline.io.hdf5_dataset import HDF5Dataset, open_split, open_training_splits
from pipeline.io.hdf5_writer import HDF5Writer
from pipeline.plain_file import read_file
from pipeline.progress import progress_bar
from pipeline.randomness import random_stream
from pipeline.recipe import Mean

MEANS = "tiny_imagenet_mean.json"
OUTPUTS = ("train.hdf5", "val.hdf5", "test.hdf5", MEANS)
ADVICE = "fetch the data set again, or leave such images out with --skip-corrupt"


class Means(msgspec.Struct):
    """The contents of ``MEANS``: a value for each colour channel, and the build that it is of."""

    R: Mean
    G: Mean
    B: Mean
    build_id: str = ""


@dataclass(frozen=True)
class BuildReport:
    """What was built."""

    classes: int
    images: dict[str, int]
    """Images in each split."""
    skipped: dict[str, str]
    """Why each image that was left out could not be decoded."""
    notes: Sequence[str]
    """How the images were found."""


def build_data_set(
    source: ImageSource,
    output: Path,
    *,
    image_size: int,
    test_images_per_class: int,
    seed: int,
    overwrite: bool = False,
    skip_corrupt: bool = False,
    draw_val: bool = False,
) -> BuildReport:
    """Write ``train.hdf5``, ``val.hdf5``, ``test.hdf5`` and the train split's means to ``output``.

    The files get their names one right after the other once all are complete and on the disk;
    until then an earlier build stays. All bear one build id, for a kill may come between two names.

    Args:
        source: Where the images are read from.
        output: A folder, made as needed.
        image_size: Pixels a side; other images are resized.
        test_images_per_class: Train images of each class that become the test split.
        seed: Draws them.
        overwrite: Replace an earlier build.
        skip_corrupt: Leave out images that cannot be decoded, before anything is drawn.
        draw_val: Take Tiny ImageNet without its validation images too; they are drawn like the test
            split, which they always are where other data has none.

    Raises:
        UserError: The source does not say what it holds, an image is corrupt, or the output is
            taken or cannot be written.
    """
    found = read_labelled_images(source, draw_val=draw_val)
    with folder_lock(output):
        _refuse_earlier_build(output, overwrite)
        corrupt = dict(find_undecodable(source, [*found.train, *found.val])) if skip_corrupt else {}
        train = [image for image in found.train if image not in corrupt]
        val = [image for image in found.val if image not in corrupt]
        if found.val and not val:
            raise UserError("no val image can be decoded; fetch the data set again")
        train, test = draw_split(train, found.classes.ids, test_images_per_class, seed)
        if not val:
            train, val = draw_split(train, found.classes.ids, test_images_per_class, seed, "val")
        splits = {"train": train, "val": val, "test": test}
        with (
            atomic_writes(output / name for name in OUTPUTS) as (*hdf5_paths, means_path),
            ExitStack() as open_files,
        ):
            writers, means = {}, {}
            for path, (split, images) in zip(hdf5_paths, splits.items(), strict=True):
                writer = HDF5Writer(
                    path,
                    count=len(images),
                    image_size=image_size,
                    classes=found.classes,
                    split=split,
                    seed=seed,
                )
                writers[split] = open_files.enter_context(writer)
                means[split] = _write_split(writer, source, images, split, image_size)
            build_id = _build_id(found, seed, (w.fingerprint for w in writers.values()))
            for split, writer in writers.items():
                writer.complete(build_id, means[split])
            of_train = dict(zip("RGB", means["train"], strict=True))
            means_path.write_text(json.dumps(of_train | {"build_id": build_id}, indent=2) + "\n")
    return BuildReport(
        classes=len(found.classes),
        images={split: len(images) for split, images in splits.items()},
        skipped={image.name: reason for image, reason in corrupt.items()},
        notes=found.notes,
    )


def draw_split(
    images: Sequence[LabelledImage],
    class_ids: Sequence[str],
    per_class: int,
    seed: int,
    split: str = "test",
) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Take ``per_class`` images of each class out of ``images``; return the rest and the taken.

    The draw for a class depends on the seed, the split and that class's images alone.

    Raises:
        UserError: A class has too few images to leave any for training.
    """
    members = {label: [] for label in range(len(class_ids))}
    for image in images:
        members[image.label].append(image)
    rest, taken = [], []
    for class_id, group in zip(class_ids, members.values(), strict=True):
        if len(group) <= per_class:
            raise UserError(
                f"class {class_id} has {len(group)} usable train images, and the {split} split "
                f"takes {per_class} and must leave some; add images, leave the class out of "
                "wnids.txt, or lower TEST_IMAGES_PER_CLASS in config/setup_config.py"
            )
        order = random_stream(seed, f"{split} split of {class_id}").permutation(len(group))
        chosen = set(order[:per_class].tolist())
        for index, image in enumerate(group):
            (taken if index in chosen else rest).append(image)
    return rest, taken


def is_built(folder: Path) -> bool:
    """Tell whether ``folder`` holds all files of a build."""
    return all((folder / name).is_file() for name in OUTPUTS)


def check_built(
    source: ImageSource,
    folder: Path,
    *,
    image_size: int,
    test_images_per_class: int,
    seed: int,
    skip_corrupt: bool = False,
    draw_val: bool = False,
) -> None:
    """Check that ``folder`` holds what ``build_data_set`` would write there.

    Settings, classes and counts are compared, not pixels.

    Raises:
        UserError: It holds another build, or a damaged one.
    """
    found = read_labelled_images(source, draw_val=draw_val)
    (train, val), test = open_training_splits(folder), open_split(folder, "test")
    images = len(train) + len(val) + len(test)
    built_and_asked = {
        "seed": (train.seed, seed),
        "classes": (train.classes, found.classes),
        "IMAGE_SIZE": (train.images.shape[1], image_size),
        "TEST_IMAGES_PER_CLASS": (len(test) // len(train.classes), test_images_per_class),
        "images": (images, images if skip_corrupt else len(found.train) + len(found.val)),
    }
    differing = ", ".join(
        name for name, (built, asked) in built_and_asked.items() if built != asked
    )
    if differing:
        raise UserError(
            f"{folder} holds another build (other {differing}); give --overwrite to replace it, "
            "or another folder with -o"
        )


def read_means(train: HDF5Dataset) -> tuple[float, float, float]:
    """Return the R, G and B means, 0 to 255, that lie beside a train split.

    Raises:
        UserError: They are missing, damaged, or of another build than the train split.
    """
    path = train.path.parent / MEANS
    try:
        with refusal_to_read(path):
            stored = msgspec.json.decode(read_file(path), type=Means)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is missing or damaged; build it again with build_dataset.py --overwrite"
        ) from error
    means = stored.R, stored.G, stored.B
    if (stored.build_id, means) != (train.build_id, train.means or means):
        raise UserError(
            f"{path} is of another build than {train.path.name}; "
            "build it again with build_dataset.py --overwrite"
        )
    return means


def _build_id(found: LabelledImages, seed: int, fingerprints: Iterable[str]) -> str:
    """Return what ties the files of a build: equal for equal input and seed."""
    contents = [seed, found.classes.ids, found.classes.names, *fingerprints]
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()


def _refuse_earlier_build(output: Path, overwrite: bool) -> None:
    present = [output / name for name in OUTPUTS if (output / name).exists()]
    if present and not overwrite:
        raise UserError(f"{present[0]} is there already; give --overwrite to replace the build")


def _write_split(
    writer: HDF5Writer,
    source: ImageSource,
    images: Sequence[LabelledImage],
    split: str,
    image_size: int,
) -> list[float]:
    """Decode the images into the file; return the mean of each channel, 0 to 255."""
    sums = np.zeros(3)
    with progress_bar(split, len(images)) as bar:
        for chunk in decode_in_order(source, images, image_size, ADVICE):
            writer.append(chunk.images, chunk.labels, chunk.sources)
            sums += chunk.channel_sums
            bar.increment(len(chunk.labels))
    return (sums / (len(images) * image_size**2)).tolist()
