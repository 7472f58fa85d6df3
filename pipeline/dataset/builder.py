"""Turn a data set into three HDF5 files and the channel means."""

import hashlib
import json
import posixpath
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.classes import Classes
from pipeline.dataset.decoding import decode_in_order, find_undecodable
from pipeline.dataset.image_source import ImageSource
from pipeline.dataset.tiny_imagenet import (
    LabelledImage,
    LabelledImages,
    read_labelled_images,
)
from pipeline.errors import UserError
from pipeline.io.files import atomic_writes, folder_lock
from pipeline.io.hdf5_dataset import HDF5Dataset, open_split, open_training_splits
from pipeline.io.hdf5_writer import HDF5Writer
from pipeline.printing import without_library_messages
from pipeline.progress import progress_bar
from pipeline.randomness import random_stream

MEANS = "tiny_imagenet_mean.json"
OUTPUTS = ("train.hdf5", "val.hdf5", "test.hdf5", MEANS)


@dataclass(frozen=True)
class BuildSettings:
    """What determines a build, besides the data set."""

    image_size: int
    """In pixels; other images are cropped and resized."""
    test_images_per_class: int
    """Train images of each class that become the test split."""
    seed: int
    """Draws splits."""
    skip_corrupt: bool = False
    """Leave out images that cannot be decoded, before anything is drawn."""
    draw_val: bool = False
    """Draw the val split from train, like the test split, also where Tiny ImageNet lacks it: for
    other data that is always done."""


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
    source: ImageSource, output: Path, settings: BuildSettings, *, overwrite: bool = False
) -> BuildReport:
    """Write ``train.hdf5``, ``val.hdf5``, ``test.hdf5`` and the train split's means to ``output``.

    The files are renamed into place one after the other once all are on the disk; until then an
    earlier build stays. One build id ties them, for a kill may come between two renames.

    Args:
        source: The data set.
        output: A folder, made as needed.
        settings: What determines the build besides.
        overwrite: Replace an earlier build.

    Raises:
        UserError: The source's layout is not understood, an image is corrupt, or the output is
            taken or cannot be written.
    """
    found = read_labelled_images(source, draw_val=settings.draw_val)
    classes, size, seed = found.classes, settings.image_size, settings.seed
    with folder_lock(output), without_library_messages():
        present = [output / name for name in OUTPUTS if (output / name).exists()]
        if present and not overwrite:
            raise UserError(f"{present[0]} is there already; give --overwrite to replace the build")
        corrupt = _corrupt(found, source, settings)
        splits = _draw_splits(found, corrupt, settings)
        with (
            atomic_writes(output / name for name in OUTPUTS) as (*hdf5_paths, means_path),
            ExitStack() as open_files,
        ):
            writers = {}
            for path, (split, images) in zip(hdf5_paths, splits.items(), strict=True):
                writer = HDF5Writer(
                    path,
                    split,
                    labels=[image.label for image in images],
                    file_names=[*map(_encoded_name, images)],
                    image_size=size,
                    classes=classes,
                    seed=seed,
                )
                writers[split] = open_files.enter_context(writer)
                _write_split(writer, source, images, split, size)
            build_id = _build_id(classes, seed, writers.values())
            for writer in writers.values():
                writer.complete(build_id, writers["train"].fingerprint)
            of_train = dict(zip("RGB", writers["train"].means, strict=True))
            means_path.write_text(json.dumps(of_train | {"build_id": build_id}, indent=2) + "\n")
    return BuildReport(
        classes=len(classes),
        images={split: len(images) for split, images in splits.items()},
        skipped=corrupt,
        notes=[*found.notes, *_notes(found, splits, writers)],
    )


def _corrupt(found: LabelledImages, source: ImageSource, settings: BuildSettings) -> dict[str, str]:
    """Return the names of the images to leave out, each with the reason."""
    names = [image.name for image in (*found.train, *found.val, *found.test)]
    return find_undecodable(source, names) if settings.skip_corrupt else {}


def _encoded_name(image: LabelledImage) -> bytes:
    """Return the name of an image's file, without its folders, as it is stored."""
    return posixpath.basename(image.name).encode("utf-8", "backslashreplace")


def _notes(
    found: LabelledImages,
    splits: Mapping[str, Sequence[LabelledImage]],
    writers: Mapping[str, HDF5Writer],
) -> Iterator[str]:
    """Warn where few train images are left, and where val or test images duplicate train's."""
    train, val, test = map(len, splits.values())
    if val + test > train and not (found.val and found.test):
        yield (
            f"note: {train:,} of {train + val + test:,} images are left to train on; "
            "TEST_IMAGES_PER_CLASS in config/setup_config.py says how many are drawn"
        )
    trained_on = set(writers["train"].files)
    for split in ("val", "test"):
        pairs = zip(splits[split], writers[split].files, strict=True)
        if copies := [image.name for image, file in pairs if file in trained_on]:
            yield (
                f"note: {len(copies):,} of {len(splits[split]):,} {split} images are copies of "
                f"train images, such as {copies[0]}"
            )


def _draw_splits(
    found: LabelledImages, left_out: Container[str], settings: BuildSettings
) -> dict[str, Sequence[LabelledImage]]:
    """Return the images of the train, val and test split.

    Raises:
        UserError: Too few are left for one.
    """
    train, val, test = (
        [image for image in images if image.name not in left_out]
        for images in (found.train, found.val, found.test)
    )
    for split, before, now in (("val", found.val, val), ("test", found.test, test)):
        if before and not now:
            raise UserError(f"no {split} image can be decoded; replace them, or remove the folder")
    drawn = [split for split, images in (("test", test), ("val", val)) if not images]
    _check_enough(train, found.classes.ids, settings.test_images_per_class * len(drawn))
    if not test:
        train, test = _draw_split(train, found.classes.ids, "test", settings)
    if not val:
        train, val = _draw_split(train, found.classes.ids, "val", settings)
    return {"train": train, "val": val, "test": test}


def _check_enough(images: Iterable[LabelledImage], class_ids: Sequence[str], drawn: int) -> None:
    labels = np.array([image.label for image in images], np.int64)
    counts = np.bincount(labels, minlength=len(class_ids))
    fewest = counts.argmin()
    if counts[fewest] <= drawn:
        advice = "add images, or name the other classes in wnids.txt"
        if drawn:
            advice = (
                f"{drawn} of each are drawn for other splits, and some must be left; lower "
                f"TEST_IMAGES_PER_CLASS in config/setup_config.py, {advice}"
            )
        raise UserError(
            f"class {class_ids[fewest]} has {counts[fewest]} usable train images, the fewest; "
            f"{advice}"
        )


def _draw_split(
    images: Iterable[LabelledImage], class_ids: Sequence[str], split: str, settings: BuildSettings
) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Take some images of each class out of ``images``; return the rest and the taken.

    The draw for a class depends on the seed, the split and that class's images alone.
    """
    per_class = settings.test_images_per_class
    members = [[] for _ in class_ids]
    for image in images:
        members[image.label].append(image)
    rest, taken = [], []
    for class_id, group in zip(class_ids, members, strict=True):
        stream = random_stream(settings.seed, f"{split} split of {class_id}")
        chosen = set(stream.permutation(len(group))[:per_class].tolist())
        for index, image in enumerate(group):
            (taken if index in chosen else rest).append(image)
    return rest, taken


def _write_split(
    writer: HDF5Writer, source: ImageSource, images: Sequence[LabelledImage], split: str, size: int
) -> None:
    """Decode the images into the file."""
    names = [image.name for image in images]
    with progress_bar(split, len(names)) as bar:
        for pixels, files in decode_in_order(source, names, size):
            writer.append(pixels, files)
            bar.increment(len(files))


def _build_id(classes: Classes, seed: int, writers: Iterable[HDF5Writer]) -> str:
    """Return the id shared by a build's files, equal for equal input and seed."""
    contents = [seed, classes.ids, classes.names, *(writer.fingerprint for writer in writers)]
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()


def is_built(folder: Path) -> bool:
    """Return whether ``folder`` holds all files of a build."""
    return all((folder / name).is_file() for name in OUTPUTS)


def _hold_same_images(
    built: Mapping[str, HDF5Dataset],
    found: LabelledImages,
    source: ImageSource,
    settings: BuildSettings,
) -> bool:
    """Return whether a build's names and labels are those of the images ``found``."""
    with without_library_messages():
        corrupt = _corrupt(found, source, settings)
    try:
        splits = _draw_splits(found, corrupt, settings)
    except UserError:  # fewer are left than were drawn, or none
        return False
    return all(
        built[split].labels.tolist() == [image.label for image in images]
        and built[split].encoded_names.tolist() == [*map(_encoded_name, images)]
        for split, images in splits.items()
    )


def check_built(source: ImageSource, folder: Path, settings: BuildSettings) -> None:
    """Check that ``folder`` holds what ``build_data_set`` would write there.

    Settings, classes, the images' names and labels, and the means' build id are compared, not
    pixels.

    Raises:
        UserError: It holds another build, or a damaged one.
    """
    found = read_labelled_images(source, draw_val=settings.draw_val)
    train, val = open_training_splits(folder)
    built = {"train": train, "val": val, "test": open_split(folder, "test")}
    drawn = [built[split] for split in ("val", "test") if not getattr(found, split)]
    per_class = len(drawn[0]) // len(train.classes) if drawn else settings.test_images_per_class
    as_built = replace(settings, seed=train.seed, test_images_per_class=per_class)
    differs = {
        "seed": train.seed != settings.seed,
        "classes": train.classes != found.classes,
        "IMAGE_SIZE": train.images.shape[1] != settings.image_size,
        "TEST_IMAGES_PER_CLASS": per_class != settings.test_images_per_class,
        "images": train.classes == found.classes
        and not _hold_same_images(built, found, source, as_built),
        MEANS: train.build_id not in (folder / MEANS).read_text(errors="replace"),
    }
    if any(differs.values()):
        flags = ", or the flags of that build" if differs["seed"] or differs["images"] else ""
        raise UserError(
            f"{folder} holds another build (other {', '.join(filter(differs.get, differs))}); "
            f"give --overwrite to replace it, or another folder with -o{flags}"
        )
