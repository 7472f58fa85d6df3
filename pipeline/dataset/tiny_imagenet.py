"""Find a data set's images, and label them.

A data set is a folder ``train`` with ``val`` beside it: Tiny ImageNet as published, as scripts and
archivers leave it, or a person's own images in a folder per class. ``wnids.txt`` (a class id per
line) chooses the classes; without it they are the class folders of ``train``. ``words.txt`` (class
id, words) names them.
"""

import codecs
import io
import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline.classes import Classes
from pipeline.dataset.image_source import ImageSource
from pipeline.errors import UserError
from pipeline.preprocessing.images import SUFFIXES

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""The split of the images in a folder of this name, in any case."""
NO_IMAGES = (".txt", ".csv", ".json", ".xml", ".md", ".ini", ".db")
"""Suffixes of files that may lie among images, and are ignored without a note."""
ABOVE_TRAIN = re.compile(r"((?:[^/]+/)*?)train(?:/|\Z)", re.IGNORECASE)
WORDNET_ID = re.compile(r"n\d{8}")
NOT_IN_NAMES = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's categories of control characters, surrogates, and what ends a line or a paragraph."""
UTF_16_MARKS = codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE


class LabelledImage(NamedTuple):
    """An image's name in its source, and its label: the index of its class id in sorted order."""

    name: str
    label: int


@dataclass(frozen=True)
class LabelledImages:
    """Images of known classes."""

    classes: Classes
    train: Sequence[LabelledImage]
    val: Sequence[LabelledImage]
    test: Sequence[LabelledImage]
    """``val`` or ``test`` is empty where it is to be drawn from ``train``."""
    notes: Sequence[str]
    """How they were found, and what was left out: lines for a person to read."""


ClassIds = Mapping[str, str]
"""By the names of images; "" where unknown."""
ANNOTATIONS = "val_annotations.txt"
"""Has a line per val image: file name, class id and, unused, a bounding box."""


def find_data_set(default: Path) -> Path:
    """Return ``default``, or the zip of the same name if there is no folder.

    If both are there, it is the one that is built: a zip may be built first and unpacked later.
    """
    archive = default.with_name(f"{default.name}.zip")
    if not archive.is_file():
        return default
    built = [(default_hdf5_folder(path) / "train.hdf5").is_file() for path in (default, archive)]
    return archive if not default.is_dir() or built == [False, True] else default


def default_hdf5_folder(data_set: Path) -> Path:
    """Return where a data set's HDF5 files go: in its folder, or beside its zip.

    A zip may be deleted once it is built.
    """
    return (data_set if data_set.is_dir() else data_set.parent) / "hdf5"


def read_labelled_images(source: ImageSource, *, draw_val: bool = False) -> LabelledImages:
    """List the images of ``source`` with their labels.

    Train images come by class and file name, the others by the numbers in their file names: the
    official order, whatever the layout. Tiny ImageNet's test images have no labels, and class
    folders among them come from scripts that moved val's: they are left out.

    Args:
        source: Searched for the folder that holds ``train``.
        draw_val: Accept Tiny ImageNet without val images too, as any other data.

    Raises:
        UserError: It has no train images, or an image's class is unknown or contradictory.
    """
    folders, others = _images_by_folder(source.names)
    root = _find_root(folders, source.names)
    by_folder = _class_folders(folders, root)
    annotated = _read_annotations(source, root)
    found = {
        "train": _label(by_folder["train"], {}),
        "val": _label(_without_copies(by_folder["val"]), annotated),
    }
    listed = [line for (line,) in _read_table(source, f"{root}wnids.txt", 0)]
    ids = sorted(set(listed or found["train"].values()))
    labels = {class_id: label for label, class_id in enumerate(ids)}
    is_tiny_imagenet = all(map(WORDNET_ID.fullmatch, ids))
    own_test = {name: class_id for name, class_id in by_folder["test"].items() if class_id}
    found["test"] = {} if is_tiny_imagenet else own_test
    _check_classes(labels, found, bool(listed))
    taken = (stem for stem, class_id in annotated.items() if class_id in labels)
    _check_annotations(taken, found["val"], by_folder["test"])
    train, val, test = (
        [LabelledImage(name, labels[id_]) for name, id_ in class_ids.items() if id_ in labels]
        for class_ids in found.values()
    )
    if not val and not draw_val and is_tiny_imagenet:
        raise UserError(
            "val/ holds no image of these classes; fetch the data set again, or give --draw-val to "
            "draw it from the train images, as the test split is"
        )
    train.sort(key=lambda image: (image.label, posixpath.basename(image.name), image.name))
    for images in (val, test):
        images.sort(key=lambda image: (_natural_order(posixpath.basename(image.name)), image.name))
    words = dict(row for row in _read_table(source, f"{root}words.txt", 1) if len(row) == 2)
    classes = Classes(tuple(ids), tuple(words.get(class_id, class_id) for class_id in ids))
    notes = [
        *_notes(by_folder, annotated, found, labels, is_tiny_imagenet),
        *_notes_on_files(folders, others, root),
    ]
    return LabelledImages(classes, train, val, test, notes)


def _images_by_folder(names: Iterable[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Return the images' files of each folder that holds any, and the names of all other files."""
    folders, others = defaultdict(list), []
    for name in names:
        folder, _, file = name.rpartition("/")
        if posixpath.splitext(file)[1].lower() in SUFFIXES:
            folders[folder].append(file)
        else:
            others.append(name)
    return folders, others


def _find_root(folders: Iterable[str], names: Iterable[str]) -> str:
    """Return the outermost folder, "" or with a "/" at its end, that holds ``train``'s images."""
    roots = {match[1] for match in map(ABOVE_TRAIN.match, folders) if match}
    if not roots:
        archive = next((f" (there is {name})" for name in names if name.endswith(".zip")), "")
        raise UserError(
            "this is no data set: no folder in it is named train and holds images; name the folder "
            f"or the zip{archive} that holds train/CLASS/, or move the class folders into train/"
        )
    depth = min(root.count("/") for root in roots)
    outermost = sorted(root for root in roots if root.count("/") == depth)
    if len(outermost) > 1:
        raise UserError(
            f"there are several data sets: {', '.join(outermost)}; name one with -d, of a zip once "
            "it is unpacked"
        )
    return outermost[0]


def _class_folders(folders: Mapping[str, Iterable[str]], root: str) -> dict[str, ClassIds]:
    """Return for each split the class folder, "" if none, of each of its images."""
    images = {split: {} for split in SPLITS.values()}
    for folder, files in folders.items():
        split, inner = _place(folder, root)
        if split:
            class_folder = unicodedata.normalize("NFC", next(iter(inner), ""))
            images[split] |= {f"{folder}/{file}": class_folder for file in files}
    return images


def _place(folder: str, root: str) -> tuple[str, list[str]]:
    """Return the split of a folder, "" if none, and the folders in it that lead there."""
    if not folder.startswith(root):
        return "", []
    top, *inner = folder.removeprefix(root).split("/")
    return SPLITS.get(top.casefold(), ""), [part for part in inner if part.casefold() != "images"]


def _without_copies(val: ClassIds) -> ClassIds:
    """Leave out images of which a script put copies into class folders."""
    copied = {_stem(name) for name, folder in val.items() if folder}
    return {name: folder for name, folder in val.items() if folder or _stem(name) not in copied}


def _label(folders: ClassIds, annotated: Mapping[str, str]) -> ClassIds:
    """Return the class id of each image, by its folder or its line; the two must agree."""
    class_ids = {}
    for name, folder in folders.items():
        line = annotated.get(_stem(name), "")
        if not (folder or line):
            raise UserError(
                f"nothing says of which class {name} is: it lies in no class folder and has "
                f"no line in {ANNOTATIONS}; move it to a folder of its class, or remove it"
            )
        if folder and line and folder != line:
            raise UserError(
                f"{name} is of class {folder} by its folder and {line} by {ANNOTATIONS}; "
                "correct one of them"
            )
        class_ids[name] = folder or line
    return class_ids


def _check_classes(ids: Collection[str], found: Mapping[str, ClassIds], listed: bool) -> None:
    if len(ids) == 1:
        where, advice = "train/ holds", "there must be several, in a folder each directly in train/"
        if listed:
            where, advice = "wnids.txt names", "add others, one id a line"
        raise UserError(f"{where} one class alone, {next(iter(ids))}; {advice}")
    for class_id in ids:
        if any(unicodedata.category(character) in NOT_IN_NAMES for character in class_id):
            what = "write one id a line in wnids.txt" if listed else "rename its folder"
            raise UserError(f"{class_id!r} cannot be the name of a class; {what}")
    if empty := sorted(set(ids) - set(found["train"].values())):
        raise UserError(
            f"train/ has no image of {len(empty)} of the {len(ids)} classes in wnids.txt, such as "
            f"{empty[0]}; remove them from wnids.txt, or fetch the data set again"
        )
    for name, class_id in (*found["val"].items(), *found["test"].items()):
        if class_id not in ids and not listed:
            raise UserError(
                f"{name} is of class {class_id}, of which train/ has no image; add some, or name "
                "the classes to take in wnids.txt, one a line"
            )


def _check_annotations(stems: Iterable[str], val: Iterable[str], test: Iterable[str]) -> None:
    """Refuse lines that do not name one image each; to move some to test/ is a common step."""
    counts = Counter(map(_stem, val))
    moved = set(map(_stem, test)) - set(counts)
    wrong = [stem for stem in stems if counts[stem] != 1 and stem not in moved]
    if wrong and counts:
        raise UserError(
            f"{ANNOTATIONS} names {wrong[0]}, of which val/ has {counts[wrong[0]]} images, not one "
            f"({len(wrong)} such lines); remove lines or copies, or fetch the data set again"
        )


def _notes(
    by_folder: Mapping[str, ClassIds],
    annotated: Mapping[str, str],
    found: Mapping[str, ClassIds],
    ids: Collection[str],
    is_tiny_imagenet: bool,
) -> Iterator[str]:
    read = [
        f"each {split} image's class from its folder"
        for split, class_ids in found.items()
        if class_ids and any(by_folder[split].values())
    ]
    if any(_stem(name) in annotated for name in by_folder["val"]):
        read.append(f"each val image's class from {ANNOTATIONS}")
    yield f"read {', '.join(read)}"
    if copies := len(by_folder["val"]) - len(found["val"]):
        yield f"{copies:,} images of val/ are also in its class folders, and are taken once"
    for split, class_ids in found.items():
        if others := [class_id for class_id in class_ids.values() if class_id not in ids]:
            count = len(set(others))
            yield f"left out {len(others):,} {split} images of {count:,} classes not in wnids.txt"
    test = list(by_folder["test"].values())
    unlabelled = test.count("")
    if is_tiny_imagenet and (labelled := len(test) - unlabelled):
        yield f"left out {labelled:,} images in class folders of test/: test is drawn from train/"
    elif unlabelled and not is_tiny_imagenet:
        yield f"left out {unlabelled:,} images of test/ that lie in no class folder"
    for split in ("val",) if is_tiny_imagenet else ("val", "test"):
        missing = sorted(set(ids) - set(found[split].values()))
        if len(missing) == len(ids):
            yield f"no {split} images of these classes: they are drawn from train/"
        elif missing:
            yield f"{split}/ has no image of {len(missing)} of the classes, such as {missing[0]}"


def _notes_on_files(
    folders: Mapping[str, Sequence[str]], others: Iterable[str], root: str
) -> Iterator[str]:
    places = {folder: _place(folder, root) for folder in folders}
    if of_no_split := [folder for folder, (split, _) in places.items() if not split]:
        count, first = sum(len(folders[folder]) for folder in of_no_split), of_no_split[0]
        example = posixpath.join(first, folders[first][0])
        yield f"left out {count:,} images that lie in no split, such as {example}"
    if nested := [folder for folder, (split, inner) in places.items() if split and len(inner) > 1]:
        yield f"took folders within class folders, such as {nested[0]}, as parts of the outer class"
    unknown = [
        name for name in others if _place(name, root)[0] and not name.lower().endswith(NO_IMAGES)
    ]
    if unknown:
        yield f"left out {len(unknown):,} files without an image's suffix, such as {unknown[0]}"


def _read_annotations(source: ImageSource, root: str) -> dict[str, str]:
    """Return the class id of each annotated image, by the stem of its file's name."""
    annotated: dict[str, str] = {}
    for place in source.names:
        if not place.startswith(root) or posixpath.basename(place) != ANNOTATIONS:
            continue
        for file, *more in _read_table(source, place):
            if not more:
                raise UserError(f"{place} gives no class id for {file}; add it, or remove the line")
            if (class_id := annotated.setdefault(_stem(file), more[0])) != more[0]:
                raise UserError(
                    f"{place} says that {file} is of class {class_id} and of {more[0]}; "
                    "remove one of the lines"
                )
    return annotated


def _read_table(source: ImageSource, name: str, max_splits: int = -1) -> list[list[str]]:
    """Return a text file's rows, split at tabs or else spaces; [] where there is no such file."""
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
    text = unicodedata.normalize("NFC", text)
    # universal newlines: str.splitlines would cut words at U+2028 too
    lines = [line.strip() for line in io.StringIO(text, newline=None) if line.strip()]
    rows = (line.split("\t" if "\t" in line else None, max_splits) for line in lines)
    return [[text.strip() for text in row] for row in rows]


def _stem(name: str) -> str:
    """Return the last part of a path without its suffix, composed as text files are read."""
    return unicodedata.normalize("NFC", posixpath.splitext(posixpath.basename(name))[0])


def _natural_order(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts ``val_9`` before ``val_10``."""
    return [(len(part), part) for part in re.split(r"(\d+)", name)]
