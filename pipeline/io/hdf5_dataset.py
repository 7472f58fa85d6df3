"""Open a split of a built data set: checked, and mapped into memory.

The page cache keeps what fits of the file, whatever its size; reading a row costs a copy.
"""

from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np

from pipeline.classes import Classes
from pipeline.errors import UserError, first_line
from pipeline.io.files import explain_read_refusal
from pipeline.io.hdf5_writer import FORMAT
from pipeline.recipe import Mean, Seed

CONTENTS = ("Images", "Labels", "Label_Names", "Class_Names", "File_Names")
MAX_CLASSES = 100_000
MAX_NAME_BYTES = 2048
"""Bytes; file systems allow 255, which may be escaped."""


@dataclass(frozen=True)
class HDF5Dataset:
    """The images of one split, and what they show."""

    path: Path
    split: str
    images: np.ndarray
    """uint8 RGB (n, size, size, 3), mapped, read-only."""
    labels: np.ndarray
    """int64 (n,), the index into ``classes``."""
    classes: Classes
    seed: int
    """What the test split was drawn with."""
    fingerprint: str
    """A hash of the image size, and of all labels and image files."""
    build_id: str
    """The same in all files of one build."""
    means: tuple[float, float, float]
    """Channel means (R, G, B) of this split's images, 0 to 255."""
    encoded_names: np.ndarray
    """bytes (n,), the images' file names without folders, in UTF-8."""
    train_fingerprint: str | None = None
    """The train split's fingerprint; None in an older version's file without train.hdf5."""

    def __len__(self) -> int:
        return len(self.labels)

    def file_name(self, index: int) -> str:
        """Return the name of the file that an image was read from."""
        return self.encoded_names[index].decode("utf-8", "backslashreplace")


def open_split(folder: Path, split: str) -> HDF5Dataset:
    """Open ``folder/split.hdf5``, refusing whatever ``build_dataset.py`` did not finish.

    Raises:
        UserError: The file is missing, damaged, unfinished, laid out otherwise, or of another
            build than the train split beside it.
    """
    dataset = _open(folder, split)
    if split == "train" or not (folder / "train.hdf5").is_file():
        return dataset
    return _of_same_build(_open(folder, "train"), dataset)


def open_training_splits(folder: Path) -> tuple[HDF5Dataset, HDF5Dataset]:
    """Open the train and the val split of one build, as ``open_split`` does, but train once."""
    train = _open(folder, "train")
    return train, _of_same_build(train, _open(folder, "val"))


def _of_same_build(train: HDF5Dataset, dataset: HDF5Dataset) -> HDF5Dataset:
    build = attrgetter("build_id", "classes.ids", "seed")
    if build(train) != build(dataset):
        raise _unusable(dataset.path, f"of another build than {train.path.name}")
    return replace(dataset, train_fingerprint=train.fingerprint)  # older files lack it


def _open(folder: Path, split: str) -> HDF5Dataset:
    path = folder / f"{split}.hdf5"
    if not path.is_file():
        raise UserError(
            f"{path} does not exist; build it with build_dataset.py, or name its folder with --hdf5"
        )
    try:
        # read as a stream, without HDF5's lock: the file was renamed into place whole, and somebody
        # may hold it open, in this process too
        with explain_read_refusal(path), path.open("rb") as stream, h5py.File(stream, "r") as file:
            return _read_checked(path, file, split)
    except (
        OSError, AttributeError, KeyError, TypeError, ValueError, OverflowError, RuntimeError,
    ) as error:  # fmt: skip
        reason = f"not a readable HDF5 file of this project ({first_line(error)})"
        raise _unusable(path, reason) from error


def _read_checked(path: Path, file: h5py.File, split: str) -> HDF5Dataset:
    attributes = file.attrs
    if not attributes.get("complete", False):
        raise _unusable(path, "from an interrupted build, or not built by build_dataset.py")
    if attributes["format"] != FORMAT:
        raise _unusable(path, f"of format {attributes['format']}, and this version reads {FORMAT}")
    if attributes["split"] != split:
        raise _unusable(path, f"the {attributes['split']} split under another name")
    if not all(isinstance(file.get(name, getlink=True), h5py.HardLink) for name in CONTENTS):
        raise _unusable(path, f"without {', '.join(CONTENTS)} of its own")
    images, labels, ids, names, file_names = (file[name] for name in CONTENTS)
    count, side = labels.size, images.shape[1] if images.ndim > 1 else 0
    if images.dtype != np.uint8 or images.shape != (count, side, side, 3) or 0 in images.shape:
        raise _unusable(path, f"of shape {images.shape}, not (images, pixels, pixels, 3) in uint8")
    offset = images.id.get_offset()
    if images.chunks is not None or offset is None or images.external is not None:
        raise _unusable(path, "not stored contiguously")
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise _unusable(path, "without a whole number for each image's label")
    if ids.ndim != 1 or ids.shape != names.shape or not 0 < ids.size < MAX_CLASSES:
        raise _unusable(path, "without an id and words for each class")
    classes = Classes(tuple(ids.asstr()[:]), tuple(names.asstr()[:]))
    labels = labels[:].astype(np.int64)
    if not 0 <= labels.min() <= labels.max() < len(classes):
        raise _unusable(path, "holding labels outside the range of its classes")
    kind, longest = file_names.dtype.kind, file_names.dtype.itemsize
    if file_names.shape != (count,) or kind != "S" or longest > MAX_NAME_BYTES:
        raise _unusable(path, "without a file name for each image")
    means = [float(mean) for mean in attributes["means"]]
    return HDF5Dataset(
        path=path,
        split=split,
        images=_Map(path, np.uint8, "r", offset, images.shape),
        labels=labels,
        classes=classes,
        seed=msgspec.convert(int(attributes["seed"]), Seed),
        fingerprint=str(attributes["fingerprint"]),
        build_id=str(attributes["build_id"]),
        means=msgspec.convert(means, tuple[Mean, Mean, Mean]),
        encoded_names=file_names[:],
        train_fingerprint=str(attributes.get("train_fingerprint", "")) or None,
    )


class _Map(np.memmap):
    """A memory map that refuses a file truncated since: reading past its end kills the process."""

    def __getitem__(self, index: Any) -> np.ndarray:
        if self._mmap.size() < self.offset + self.nbytes:
            raise _unusable(Path(self.filename), "truncated since it was opened")
        return np.asarray(super().__getitem__(index))


def _unusable(path: Path, what: str) -> UserError:
    return UserError(f"{path} is {what}; build it again with build_dataset.py --overwrite")
