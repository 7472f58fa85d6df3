"""What all figures share: colours, grid, resolution, title."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.io.files import atomic_write
from pipeline.plotting import picture_format
from pipeline.printing import printable

BLUE, ORANGE, YELLOW, GREY = "#0072B2", "#D55E00", "#E69F00", "0.4"
"""From Okabe and Ito's palette, which the colour-blind can tell apart."""
SHADES = "Blues"
"""The colour map of proportions, also legible in grey."""
DPI = 120


@contextmanager
def one_style() -> Iterator[None]:
    """Draw and write figures in Matplotlib's default style, whatever ``matplotlibrc`` says.

    A ``$`` starts no formula, and a character that the font lacks is a box without a warning.
    """
    plain = {**matplotlib.rcParamsDefault, "text.parse_math": False}
    with matplotlib.rc_context(plain), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def new_figure(title: str, width: float, height: float) -> Figure:
    """Return an empty figure of ``width`` by ``height`` inches under a title."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title)
    return figure


def shortened(text: str, length: int) -> str:
    """Return ``text``, printable, in at most ``length`` characters."""
    text = printable(text)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def add_grid(axes: Axes) -> None:
    """Draw the grid behind the curves of ``axes``."""
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)


def save_figure(figure: Figure, path: Path) -> None:
    """Write ``figure`` to ``path``, in the format of its suffix, whole or not at all."""
    with atomic_write(path) as unfinished:
        unfinished.write_bytes(figure_bytes(figure, picture_format(path)))


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """Draw ``figure`` in memory: not every format's writer fails cleanly on a full disk."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=DPI, format=kind)
    return drawn.getvalue()
