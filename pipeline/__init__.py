"""What the four scripts share: one idea a module, each usable on its own."""

import os
import sys
from types import TracebackType

# OpenCV reads these once, as it loads, whichever module loads it first. A header that claims a
# larger image is refused before it is decoded, and what OpenCV refuses is reported here instead.
os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(2**28)  # phones have up to 200 million
os.environ["OPENCV_LOG_LEVEL"] = "OFF"


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Spare who presses Ctrl-C a traceback, also while modules are imported or the process ends."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("stopped by Ctrl-C\n")
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _report
