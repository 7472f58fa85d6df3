"""Find Tiny ImageNet's images, label them and split them.

The official layout: ``wnids.txt`` (a class id a line), ``words.txt`` (class id, tab, words),
``train/ID/images/*.JPEG`` and ``val/images/*.JPEG`` with ``val/val_annotations.txt`` (file name,
class id and four box coordinates, tab-separated). The official test images bear no labels, so a
test split is drawn from the train images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline.classes import Classes
from pipeline.dataset.image_source import ImageSource
from pipeline.errors import UserError
from pipeline.randomness import random_stream

IMAGE_SUFFIXES = (".jpeg", ".jpg")
ANNOTATIONS = "val/val_annotations.txt"
ANNOTATION_COLUMNS = 6


class LabelledImage(NamedTuple):
    """An image's name within its source, and its label: the rank of its class id, from 0."""

    name: str
    label: int


@dataclass(frozen=True)
class LabelledImages:
    """Images of known classes."""

    classes: Classes
    train: tuple[LabelledImage, ...]
    val: tuple[LabelledImage, ...]


def find_data_set(default: Path) -> Path:
    """Return ``default``, or the zip of the same name where only that is there."""
    archive = default.with_name(f"{default.name}.zip")
    return archive if archive.is_file() and not default.is_dir() else default


def default_hdf5_folder(data_set: Path) -> Path:
    """Return where a data set's HDF5 files go: in its folder, or beside its zip."""
    return (data_set.parent if data_set.is_file() else data_set) / "hdf5"


def read_labelled_images(source: ImageSource) -> LabelledImages:
    """List the train and validation images of ``source`` with their labels.

    Raises:
        UserError: It is not laid out as Tiny ImageNet is; says where.
    """
    class_ids = read_class_ids(source)
    labels = {class_id: label for label, class_id in enumerate(class_ids)}
    return LabelledImages(
        classes=Classes(class_ids, _read_class_names(source, class_ids)),
        train=_list_train_images(source, labels),
        val=_list_val_images(source, labels),
    )


def read_class_ids(source: ImageSource) -> tuple[str, ...]:
    """Return the class ids of wnids.txt, sorted: in label order.

    Raises:
        UserError: ``source`` is not laid out as Tiny ImageNet is.
    """
    missing = [n for n in ("wnids.txt", "words.txt", ANNOTATIONS) if not source.exists(n)]
    if missing:
        raise UserError(
            f"this is not Tiny ImageNet: {', '.join(missing)} not found; "
            "name the folder or the zip that holds wnids.txt, train/ and val/"
        )
    class_ids = _read_text(source, "wnids.txt").split()
    if not class_ids:
        raise UserError("wnids.txt names no class; fetch the data set again")
    if len(set(class_ids)) != len(class_ids):
        raise UserError("wnids.txt names a class twice; fetch the data set again")
    for class_id in class_ids:
        if not class_id.isalnum():
            raise UserError(f"wnids.txt names {class_id!r}, which is no class id such as n01443537")
    return tuple(sorted(class_ids))


def draw_test_split(
    images: Sequence[LabelledImage], class_ids: Sequence[str], per_class: int, seed: int
) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Take ``per_class`` images of each class out of ``images``; return the rest and the taken.

    The draw for a class depends on the seed and that class's images alone.

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
                f"class {class_id} has {len(group)} usable train images, and the test split takes "
                f"{per_class} and must leave some; add images, or remove the class from wnids.txt"
            )
        order = random_stream(seed, f"test split of {class_id}").permutation(len(group))
        chosen = set(order[:per_class].tolist())
        for index, image in enumerate(group):
            (taken if index in chosen else rest).append(image)
    return rest, taken


def _read_class_names(source: ImageSource, class_ids: Sequence[str]) -> tuple[str, ...]:
    rows = (line.partition("\t") for line in _read_text(source, "words.txt").splitlines())
    words = {class_id: names for class_id, _, names in rows}
    for class_id in class_ids:
        if not words.get(class_id):
            raise UserError(
                f"words.txt has no words for class {class_id}; fetch the data set again"
            )
    return tuple(words[class_id] for class_id in class_ids)


def _list_train_images(source: ImageSource, labels: dict[str, int]) -> tuple[LabelledImage, ...]:
    unknown = sorted(set(source.names("train")) - set(labels))
    if unknown:
        raise UserError(
            f"train/{unknown[0]} is not a class of wnids.txt; add it there or remove it"
        )
    images = []
    for class_id, label in labels.items():
        names = _image_names(source, f"train/{class_id}/images")
        if not names:
            raise UserError(
                f"train/{class_id}/images holds no image; fetch the data set again, "
                "or remove the class from wnids.txt, train/ and val_annotations.txt"
            )
        images += [LabelledImage(name, label) for name in names]
    return tuple(images)


def _list_val_images(source: ImageSource, labels: dict[str, int]) -> tuple[LabelledImage, ...]:
    present = set(_image_names(source, "val/images"))
    images = {}
    for number, line in enumerate(_read_text(source, ANNOTATIONS).splitlines(), start=1):
        where = f"{ANNOTATIONS} line {number}"
        columns = line.split("\t")
        if len(columns) < ANNOTATION_COLUMNS:
            raise UserError(
                f"{where} has {len(columns)} tab-separated columns, not {ANNOTATION_COLUMNS}; "
                "fetch the data set again"
            )
        name, class_id = f"val/images/{columns[0]}", columns[1]
        if name not in present:
            raise UserError(f"{where} names {name}, which is missing; fetch the data set again")
        if class_id not in labels:
            raise UserError(f"{where} names class {class_id}, which wnids.txt does not")
        if name in images:
            raise UserError(f"{where} names {name} a second time; fetch the data set again")
        images[name] = LabelledImage(name, labels[class_id])
    if len(images) < len(present):
        raise UserError(
            f"{min(present - set(images))} has no line in {ANNOTATIONS}; fetch the data set again"
        )
    if not images:
        raise UserError("val/images holds no image; fetch the data set again")
    return tuple(images.values())


def _image_names(source: ImageSource, folder: str) -> list[str]:
    names = (name for name in source.names(folder) if name.lower().endswith(IMAGE_SUFFIXES))
    return [f"{folder}/{name}" for name in names]


def _read_text(source: ImageSource, name: str) -> str:
    try:
        return source.read(name).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not text; fetch the data set again") from error
