"""Progress bars on a terminal, and none in a log file."""

import sys

import progressbar


def progress_bar(label: str, total: int) -> progressbar.ProgressBar:
    """Return a bar on stderr with the share done and the time left; silent if no terminal."""
    if not sys.stderr.isatty():
        return progressbar.NullBar(max_value=total)
    widgets = [
        f"{label:>12} ",
        progressbar.Percentage(),
        " ",
        progressbar.Bar(),
        " ",
        progressbar.ETA(),
    ]
    return progressbar.ProgressBar(max_value=total, widgets=widgets, fd=sys.stderr)


def remove_bar(bar: progressbar.ProgressBar) -> None:
    """End a bar, wherever it stands, and leave its line on the terminal to text."""
    bar.finish(end="\r", dirty=True)
    clear_line()


def clear_line() -> None:
    """Remove a bar from the terminal's line, so that text can take its place."""
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
