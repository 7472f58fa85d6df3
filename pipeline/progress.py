"""Progress bars on a terminal, and none in a log file."""

import sys

import progressbar
from progressbar.widgets import WidgetBase

from pipeline.printing import clear_line, columns


def progress_bar(label: str, total: int, tail: WidgetBase | None = None) -> progressbar.ProgressBar:
    """Return a bar on stderr, silent if that is no terminal; ``tail`` replaces the time left."""
    if not sys.stderr.isatty():
        return progressbar.NullBar(max_value=total)
    # progressbar writes to the stderr of its own import, and builds replace stderr later
    progressbar.streams.original_stderr = sys.stderr
    percentage, bar = progressbar.Percentage(), progressbar.Bar()
    widgets = [f"{label:>12} ", percentage, " ", bar, " ", tail or progressbar.ETA()]
    width = None if sys.stdout.isatty() else columns()  # None: as it is resized
    return progressbar.ProgressBar(
        max_value=total, widgets=widgets, fd=sys.stderr, term_width=width
    )


def remove_bar(bar: progressbar.ProgressBar) -> None:
    """End a bar, wherever it stands, and clear its line."""
    bar.finish(end="\r", dirty=True)
    clear_line()


def duration(seconds: float) -> str:
    """Return "2 h 05 min", "3 min 20 s" or "12 s"."""
    whole = round(seconds)
    minutes, hours = whole // 60, whole // 3600
    if hours:
        return f"{hours} h {minutes % 60:02} min"
    return f"{minutes} min {whole % 60:02} s" if minutes else f"{whole} s"
