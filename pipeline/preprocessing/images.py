"""Decode and resize: from a file's bytes to the pixels every other part works on."""

import cv2
import numpy as np

SUFFIXES = {
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".hdr", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg",
    ".pam", ".pbm", ".pgm", ".pic", ".png", ".pnm", ".ppm", ".ras", ".sr", ".tif", ".tiff",
    ".webp",
    ".arw", ".cr2", ".cr3", ".dng", ".heic", ".heif", ".jxl", ".nef",
}  # fmt: skip
"""Of images, in lower case. OpenCV does not read those of the last line: they are reported, not
ignored."""
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
WEBP_START, GIF_START = b"RIFF", b"GIF8"
PNG_START, PNG_COLOUR_TYPE, PNG_WITH_ALPHA = b"\x89PNG", slice(25, 26), (b"\x04", b"\x06")
"""The colour type's place in the header, and those with alpha (PNG, section 11.2.2)."""
JPEG_QUALITY = 90


def decode_image(data: bytes) -> np.ndarray:
    """Decode a JPEG, or any format OpenCV reads, to uint8 RGB (height, width, 3).

    Greyscale images get three equal channels, and transparent PNGs, WebPs and GIFs lie on white.

    Args:
        data: A file's contents.

    Raises:
        ValueError: Empty, truncated, too large, or not decodable by OpenCV; says which.
    """
    if not data:
        raise ValueError("it is empty")
    unended = data.startswith(JPEG_START) and not data.endswith(JPEG_END)
    if unended:
        if JPEG_END not in data:  # OpenCV would fill the missing rows with grey
            raise ValueError("it is truncated")
        data = data[: data.rindex(JPEG_END) + len(JPEG_END)]  # cameras append videos and metadata
    try:
        image = _decode_by_opencv(data)
    except cv2.error as error:
        if "MAX_IMAGE_PIXELS" in error.err:
            raise ValueError("it is larger than any camera's images") from error
        raise ValueError(f"OpenCV refuses it ({error.err})") from error
    if image is None:
        # the end marker was the embedded thumbnail's
        raise ValueError("it is truncated" if unended else "OpenCV cannot decode it")
    return image


def _decode_by_opencv(data: bytes) -> np.ndarray | None:
    """Return the image, turned upright by its EXIF data where it is opaque; None if undecodable."""
    encoded = np.frombuffer(data, np.uint8)
    if _may_be_transparent(data):
        image = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
        if image is not None and image.shape[2:] == (4,):
            opaque = np.iinfo(image.dtype).max
            alpha = image[..., 3:] / np.float32(opaque)
            if alpha.min() < 1:
                on_white = image[..., 2::-1] * alpha + opaque * (1 - alpha)
                return np.uint8(np.rint(on_white * (255 / opaque)))
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    # IMREAD_COLOR_RGB would swap the channels of AVIF with alpha, and of PAM
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _may_be_transparent(data: bytes) -> bool:
    """Return whether a file may have an alpha channel in the whole range of its dtype."""
    if data.startswith(PNG_START):
        return data[PNG_COLOUR_TYPE] in PNG_WITH_ALPHA or b"tRNS" in data
    return data.startswith((WEBP_START, GIF_START))


def centre_crop(image: np.ndarray) -> np.ndarray:
    """Return the centre square, a view, of an image (height, width, 3)."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """Resize uint8 (height, width, 3) to (size, size, 3); an image of that size is returned as is.

    Shrinking averages areas, which avoids aliasing.
    """
    if image.shape[:2] == (size, size):
        return image
    shrinks = min(image.shape[:2]) > size
    return cv2.resize(
        image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )


def resize_images(images: np.ndarray, size: int) -> np.ndarray:
    """Resize each of uint8 (n, side, side, 3) to (n, size, size, 3), as ``resize_image`` does."""
    count, side = images.shape[:2]
    if size == side:
        return images
    if size > side:
        return np.stack([resize_image(image, size) for image in images])
    # an average never reaches over an image's edge, so all of them can be shrunk as one
    tall = cv2.resize(
        images.reshape(count * side, side, 3), (size, count * size), interpolation=cv2.INTER_AREA
    )
    return tall.reshape(count, size, size, 3)


def encode_jpeg(image: np.ndarray) -> bytes:
    """Encode uint8 RGB (height, width, 3) as a JPEG."""
    _, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    return data.tobytes()
