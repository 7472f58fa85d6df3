"""Write one split of the data set to HDF5: pixels as they are, 12,288 bytes a 64x64 image.

Equal contents give equal files, byte for byte: nothing in them holds a path or a time.
"""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import h5py
import numpy as np

from pipeline.classes import Classes

FORMAT = 2
"""Incremented when this code cannot read older files, or older code cannot read new ones."""


class HDF5Writer:
    """Fills an HDF5 file chunk by chunk; use as a context manager.

    The images are stored contiguously, so that a reader can map them into memory. The file says
    that it is complete only after ``complete``.

    Args:
        path: Where to write; the caller renames it into place (see ``files.atomic_write``).
        split: "train", "val" or "test".
        labels: Of all images that will be appended, in order.
        file_names: Of the same images, without folders, in UTF-8.
        image_size: In pixels.
        classes: That the labels are indices of.
        seed: What the test split was drawn with.
    """

    def __init__(
        self,
        path: Path,
        split: str,
        *,
        labels: Sequence[int],
        file_names: Sequence[bytes],
        image_size: int,
        classes: Classes,
        seed: int,
    ) -> None:
        self.files: list[bytes] = []
        """What tells the files of the images written so far apart."""
        self._given_labels = np.array(labels, np.int64)
        self._sums = np.zeros(3)
        self._fingerprint = hashlib.sha256(f"{image_size} pixels".encode())
        self._disk = _Disk(path, "w+")
        self._file = h5py.File(self._disk, "w")
        self._file.attrs.update(split=split, seed=seed, format=FORMAT, complete=False)
        self._images = self._file.create_dataset(
            "Images", (len(labels), image_size, image_size, 3), np.uint8
        )
        self._labels = self._file.create_dataset("Labels", (len(labels),), np.int64)
        self._file.create_dataset("Label_Names", data=classes.ids, dtype=h5py.string_dtype())
        self._file.create_dataset("Class_Names", data=classes.names, dtype=h5py.string_dtype())
        longest = max(map(len, file_names))
        self._file.create_dataset(
            "File_Names", data=file_names, dtype=h5py.string_dtype("utf-8", longest)
        )

    def append(self, images: np.ndarray, files: Sequence[bytes]) -> None:
        """Append uint8 RGB images (n, size, size, 3).

        ``files``, each image file's size and CRC-32, go into the fingerprint with the labels.
        """
        rows = slice(len(self.files), len(self.files) + len(images))
        labels = self._given_labels[rows]
        self._images[rows] = images
        self._labels[rows] = labels
        self._sums += cv2.sumElems(images.reshape(len(images), -1, 3))[:3]
        lines = (b"%d %b\n" % pair for pair in zip(labels, files, strict=True))
        self._fingerprint.update(b"".join(lines))
        self.files += files
        self._disk.check()

    @property
    def fingerprint(self) -> str:
        """A hash of the image size, and of the labels and files so far."""
        return self._fingerprint.hexdigest()

    @property
    def means(self) -> list[float]:
        """The R, G and B means of the images, 0 to 255."""
        return (self._sums / (self._images.size // 3)).tolist()

    def complete(self, build_id: str, train_fingerprint: str) -> None:
        """Mark the file as complete, with what is known only at the end.

        Args:
            build_id: The same for all files of a build, so that a reader can refuse a mixture.
            train_fingerprint: That of the train split, to tell a model that was trained on another.
        """
        self._file.attrs.update(
            fingerprint=self.fingerprint,
            build_id=build_id,
            means=self.means,
            train_fingerprint=train_fingerprint,
            complete=len(self.files) == len(self._labels),
        )

    def __enter__(self) -> "HDF5Writer":
        return self

    def __exit__(self, *error: object) -> None:
        with self._disk:
            self._file.close()
            self._disk.check()


class _Disk(io.FileIO):
    """A file that keeps its first write error for ``check``, and reports success meanwhile.

    HDF5 cannot close a file that it cannot write, and would end in a segmentation fault.
    """

    _error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        """Write all of ``data``, or keep the error."""
        rest = memoryview(data)
        try:
            while rest and self._error is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self._error = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Cut or lengthen the file, or keep the error."""
        try:
            return super().truncate(size)
        except OSError as error:
            self._error = self._error or error
            return size or 0

    def check(self) -> None:
        """Raise the first write error."""
        if self._error is not None:
            raise self._error
