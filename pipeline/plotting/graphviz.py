"""Draw a graph by Graphviz, or by its port from PyPI."""

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pydot

from pipeline.errors import UserError
from pipeline.io.files import atomic_write
from pipeline.plotting import picture_format

PROGRAMS = {"dot": ("png", "svg", "pdf", "jpg"), "graphviz-pure": ("png", "svg", "jpg")}
"""The formats that each draws, the better program first."""
PIXEL_FORMATS, DPI = ("png", "jpg"), 110
"""Graphviz cuts off an SVG that is drawn at another resolution than its own."""


def draw_graph(graph: pydot.Dot, path: Path) -> None:
    """Draw ``graph`` to ``path``, in the format of its suffix.

    Raises:
        UserError: Nothing here draws that format.
    """
    form, text = picture_format(path, "dot"), graph.to_string().encode()
    drawn = text if form == "dot" else _draw(text, form)
    with atomic_write(path) as unfinished:
        unfinished.write_bytes(drawn)


def _draw(text: bytes, form: str) -> bytes:
    settings = [f"-T{form}", *([f"-Gdpi={DPI}"] if form in PIXEL_FORMATS else [])]
    failed = ""
    for name, formats in PROGRAMS.items():
        # in this Python's environment also where that is not activated
        program = shutil.which(name) or shutil.which(name, path=sysconfig.get_path("scripts"))
        if not program or form not in formats:
            continue
        picture = subprocess.run([program, *settings], input=text, capture_output=True)
        if picture.returncode == 0:  # a Graphviz without some plug-in draws fewer formats
            return picture.stdout
        failed = f" ({program} ended with {picture.stderr.decode(errors='replace').strip()[-200:]})"
    raise UserError(
        f"nothing here draws .{form}{failed}; install Graphviz (apt install graphviz, brew install "
        "graphviz), or for png, svg and jpg: pip install graphviz-pure; a name that ends in .dot "
        "needs neither"
    )
