"""Figures: training curves, the network's diagram, the preview of augmented images, their style.

May import run and what that may."""

from pathlib import Path

from pipeline.errors import UserError

FORMATS = ("png", "svg", "pdf", "jpg")


def picture_format(path: Path, *others: str) -> str:
    """Return the format that the suffix of ``path`` asks for, of ``FORMATS`` and ``others``.

    Raises:
        UserError: The suffix is another.
    """
    form, formats = path.suffix.lower()[1:].replace("jpeg", "jpg"), (*FORMATS, *others)
    if form not in formats:
        raise UserError(f"cannot draw {path}; its name must end in .{', .'.join(formats)}")
    return form
