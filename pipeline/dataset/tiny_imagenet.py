"""Find a data set's images, label them, and draw the splits that it lacks.

A data set is a folder ``train`` with ``val`` beside it: Tiny ImageNet as published, as scripts and
archivers leave it, or a person's own images in a folder a class. ``LABEL_SOURCES`` says where an
image's class comes from. ``wnids.txt`` (a class id a line) chooses the classes; without it they are
the class folders of ``train``. ``words.txt`` (class id, words) names them. The official test images
bear no labels, so a test split is drawn from the train images.
"""

import io
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline.classes import Classes
from pipeline.dataset.image_source import ImageSource
from pipeline.errors import UserError
from pipeline.preprocessing.images import SUFFIXES
from pipeline.randomness import random_stream

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Of the images in a folder of this name, in any case."""
IMAGES = "images"
"""The folder of the official layout that is no class."""
ANNOTATIONS = "val_annotations.txt"
"""A line an image: file name, class id and, not used, a box."""
WORDNET_ID = re.compile(r"n\d{8}")
UTF_16_MARKS = b"\xff\xfe", b"\xfe\xff"


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
    """Empty where it is to be drawn from ``train``."""
    notes: tuple[str, ...]
    """How they were found, and what was left out: lines for a person to read."""


class _ImageFile(NamedTuple):
    """What the name of an image's file tells."""

    name: str
    """Within the source."""
    file: str
    """Its last part."""
    folder: str
    """The class folder it lies in; "" if none."""

    @property
    def stem(self) -> str:
        return self.file.rpartition(".")[0]


LABEL_SOURCES: dict[str, Callable[[_ImageFile, Mapping[str, str]], str]] = {
    "its folder": lambda image, _: image.folder,
    ANNOTATIONS: lambda image, annotated: annotated.get(image.stem, ""),
}
"""Where a class id, or "", is found, given the annotations by stem; all that answer must agree."""


def find_data_set(default: Path) -> Path:
    """Return ``default``, or the zip of the same name where only that is there."""
    archive = default.with_name(f"{default.name}.zip")
    return archive if archive.is_file() and not default.is_dir() else default


def default_hdf5_folder(data_set: Path) -> Path:
    """Return where a data set's HDF5 files go: in its folder, or beside its zip."""
    return (data_set.parent if data_set.is_file() else data_set) / "hdf5"


def read_labelled_images(source: ImageSource, *, draw_val: bool = False) -> LabelledImages:
    """List the train and validation images of ``source`` with their labels.

    Train images come by class and file name, validation images by the numbers in their file names:
    the official order, whatever the layout.

    Args:
        source: Searched for the folder that holds ``train``.
        draw_val: Take Tiny ImageNet without its validation images too, as other data.

    Raises:
        UserError: It does not say which images there are, or of which class they are.
    """
    folders = _images_by_folder(source.names)
    root = _find_root(folders, source.names)
    files = _list_images(folders, root)
    annotated = _read_annotations(source, root)
    found = {"train": _label(files["train"], {}), "val": _label(files["val"], annotated)}
    chosen = _read_lines(source, f"{root}wnids.txt")
    ids = sorted(set(chosen or found["train"].values()))
    _check_classes(ids, found, bool(chosen))
    _check_annotations((s for s in annotated if annotated[s] in ids), found["val"], files["test"])
    labels = {class_id: label for label, class_id in enumerate(ids)}
    train, val = (
        tuple(LabelledImage(f.name, labels[id_]) for f, id_ in class_ids.items() if id_ in labels)
        for class_ids in found.values()
    )
    if not val and not draw_val and all(map(WORDNET_ID.fullmatch, ids)):
        raise UserError(
            "val/ holds no image of these classes; fetch the data set again, or give --draw-val to "
            "draw it from the train images, as the test split is"
        )
    classes = Classes(tuple(ids), _read_class_names(source, root, ids))
    return LabelledImages(classes, train, val, tuple(_notes(files, found, labels, annotated)))


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


def _images_by_folder(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the images' files of each folder that holds any."""
    folders = defaultdict(list)
    for name in names:
        folder, _, file = name.rpartition("/")
        if f".{file.rpartition('.')[2].lower()}" in SUFFIXES:
            folders[folder].append(file)
    return folders


def _find_root(folders: Iterable[str], names: Iterable[str]) -> str:
    """Return the outermost folder, "" or with a "/" at its end, that holds ``train``'s images."""
    roots = defaultdict(set)
    for folder in folders:
        path = folder.split("/")
        if "train" in (lower := folder.casefold().split("/")):
            depth = lower.index("train")
            roots[depth].add("".join(f"{part}/" for part in path[:depth]))
    if not roots:
        archive = next((f", such as {name} in it" for name in names if name.endswith(".zip")), "")
        raise UserError(
            "this is no data set: no folder in it is named train and holds images; name the "
            f"folder or the zip that holds train/ and val/{archive}"
        )
    outermost = sorted(roots[min(roots)])
    if len(outermost) > 1:
        raise UserError(f"there are several data sets: {', '.join(outermost)}; name one with -d")
    return outermost[0]


def _list_images(folders: Mapping[str, Iterable[str]], root: str) -> dict[str, list[_ImageFile]]:
    """Return the images of each split in the official order, whatever their folders."""
    images: dict[str, list[_ImageFile]] = {split: [] for split in SPLITS.values()}
    for folder, files in folders.items():
        top, *inner = folder.removeprefix(root).split("/")
        split = SPLITS.get(top.casefold())
        if split and folder.startswith(root):
            class_folder = next((part for part in inner if part.casefold() != IMAGES), "")
            images[split] += [_ImageFile(f"{folder}/{file}", file, class_folder) for file in files]
    images["train"].sort(key=lambda image: (image.folder, image.file, image.name))
    images["val"].sort(key=lambda image: (_numbers_and_text(image.file), image.name))
    return images


def _label(files: Iterable[_ImageFile], annotated: Mapping[str, str]) -> dict[_ImageFile, str]:
    """Return the class id of each image.

    Some scripts copy images into class folders, and leave the originals beside these: they are
    passed over.
    """
    copied = {file.stem for file in files if file.folder}
    class_ids = {}
    for file in files:
        if not file.folder and file.stem in copied:
            continue
        said = {
            where: class_id
            for where, answer in LABEL_SOURCES.items()
            if (class_id := answer(file, annotated))
        }
        if not said:
            raise UserError(
                f"nothing says of which class {file.name} is: it lies in no class folder and has "
                f"no line in {ANNOTATIONS}; move it to a folder of its class, or remove it"
            )
        if len(set(said.values())) > 1:
            different = " and ".join(f"{class_id} by {where}" for where, class_id in said.items())
            raise UserError(f"{file.name} is of class {different}; correct one of them")
        (class_ids[file],) = set(said.values())
    return class_ids


def _check_classes(
    ids: Collection[str], found: Mapping[str, Mapping[_ImageFile, str]], chosen: bool
) -> None:
    for class_id in ids:
        if not class_id.isprintable():
            raise UserError(f"{class_id!r} cannot be the name of a class; rename its folder")
    empty = sorted(set(ids) - set(found["train"].values()))
    if empty:
        raise UserError(
            f"train/ has no image of {len(empty)} of the {len(ids)} classes in wnids.txt, such as "
            f"{empty[0]}; remove them from wnids.txt, or fetch the data set again"
        )
    for file, class_id in found["val"].items():
        if class_id not in ids and not chosen:
            raise UserError(
                f"{file.name} is of class {class_id}, of which train/ has no image; add some, or "
                "name the classes to take in wnids.txt, one a line"
            )


def _check_annotations(
    stems: Iterable[str], val: Iterable[_ImageFile], test: Iterable[_ImageFile]
) -> None:
    """Refuse lines that do not name one image each; to move some to test/ is a common step."""
    counts = Counter(file.stem for file in val)
    moved = {file.stem for file in test} - set(counts)
    wrong = [stem for stem in stems if counts[stem] != 1 and stem not in moved]
    if wrong and counts:
        raise UserError(
            f"{ANNOTATIONS} names {wrong[0]}, of which val/ has {counts[wrong[0]]} images, not one "
            f"({len(wrong)} such lines); remove lines or copies, or fetch the data set again"
        )


def _notes(
    files: Mapping[str, Sequence[_ImageFile]],
    found: Mapping[str, Mapping[_ImageFile, str]],
    labels: Collection[str],
    annotated: Mapping[str, str],
) -> Iterator[str]:
    read = [
        f"each {split} image's class from {where}"
        for split, lines in (("train", {}), ("val", annotated))
        for where, answer in LABEL_SOURCES.items()
        if any(answer(file, lines) for file in files[split])
    ]
    yield f"read {', '.join(read)}"
    for split, class_ids in found.items():
        copies = len(files[split]) - len(class_ids)
        if copies:
            yield f"{copies:,} images of {split}/ are also in its class folders, and are taken once"
        others = [class_id for class_id in class_ids.values() if class_id not in labels]
        if others:
            yield (
                f"left out {len(others):,} {split} images of {len(set(others)):,} classes that "
                "wnids.txt does not name"
            )
    labelled = sum(bool(file.folder) for file in files["test"])
    if labelled:
        yield (
            f"left out {labelled:,} images in class folders of test/: val is what is in val/, and "
            "test is drawn from train/"
        )
    if not found["val"]:
        yield "no val/: it is drawn from train/, as the test split is"


def _read_class_names(source: ImageSource, root: str, ids: Sequence[str]) -> tuple[str, ...]:
    """Return the words for each class: its id where ``words.txt`` has none."""
    rows = (_columns(line, 1) for line in _read_lines(source, f"{root}words.txt"))
    words = {class_id: more[0] for class_id, *more in rows if more}
    return tuple(words.get(class_id, class_id) for class_id in ids)


def _read_annotations(source: ImageSource, root: str) -> dict[str, str]:
    """Return the class id of each annotated image, by the stem of its file's name."""
    annotated: dict[str, str] = {}
    for place in source.names:
        if not place.startswith(root) or place.rpartition("/")[2] != ANNOTATIONS:
            continue
        for line in _read_lines(source, place):
            file, *more = _columns(line)
            stem = file.rpartition("/")[2].rpartition(".")[0] or file
            if not more:
                raise UserError(f"{place} gives no class id for {file}; add it, or remove the line")
            if annotated.setdefault(stem, more[0]) != more[0]:
                raise UserError(
                    f"{place} says that {file} is of class {annotated[stem]} and of {more[0]}; "
                    "remove one of the lines"
                )
    return annotated


def _columns(line: str, most: int = -1) -> list[str]:
    """Split a line at its tabs or, where it has none, at its spaces."""
    return [text.strip() for text in line.split("\t" if "\t" in line else None, most)]


def _read_lines(source: ImageSource, name: str) -> list[str]:
    """Return the lines of a text file that are not blank; [] where there is no such file."""
    if name not in source.names:
        return []
    data = source.read(name)
    try:
        text = data.decode("utf-16" if data.startswith(UTF_16_MARKS) else "utf-8-sig")
        if "\0" in text:  # HDF5 could not hold it
            raise ValueError
    except ValueError as error:
        raise UserError(
            f"{name} is not text in UTF-8; save it as such, or fetch it again"
        ) from error
    # universal newlines: str.splitlines would cut words at U+2028 too
    return [line.strip() for line in io.StringIO(text, newline=None) if line.strip()]


def _numbers_and_text(name: str) -> list[tuple[int, str]]:
    """Return a key that puts ``val_9`` before ``val_10``."""
    return [(len(part), part) for part in re.split(r"(\d+)", name)]
