"""Find and read the user's photographs, of any size and any format that OpenCV reads."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.io.regular_files import read_file, visible_files
from pipeline.preprocessing.images import SUFFIXES, centre_crop, decode_image, resize_image


def find_photographs(paths: Iterable[Path]) -> list[Path]:
    """Return the files named, and of each folder named the images in and below it, sorted.

    Links to folders are followed. Each path comes once.

    Raises:
        UserError: One is not there, or a folder holds no image.
        OSError: A folder cannot be read.
    """
    found = []
    for path in paths:
        if path.parts[:1] in (("http:",), ("https:",)):
            raise UserError(f"{path} is a URL; download the image and name the file")
        if not path.exists():
            raise UserError(f"{path} does not exist; name image files, or folders of them")
        if path.is_dir():
            files = (path / name for name in visible_files(str(path)))
            images = sorted(file for file in files if file.suffix.lower() in SUFFIXES)
            if not images:
                raise UserError(f"{path} holds no image that OpenCV reads; name another folder")
            found += images
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def read_photograph(path: Path, size: int) -> np.ndarray:
    """Return a photograph, centre-cropped and resized: uint8 RGB (size, size, 3).

    Its EXIF orientation is applied first.

    Raises:
        UserError: It cannot be read or decoded.
    """
    try:
        image = decode_image(read_file(path))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"cannot read {path}: {why}; name another, or save it as an ordinary JPEG or PNG"
        ) from error
    return resize_image(centre_crop(image), size)
