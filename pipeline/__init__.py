"""What the four scripts share: one idea per module, each usable on its own."""

import os
import sys
from types import TracebackType

# OpenCV reads these once, as it loads, whichever module loads it first. A header that claims a
# larger image is refused before it is decoded, and what OpenCV refuses is reported here instead.
os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(2**28)  # phones have up to 200 million
os.environ["OPENCV_LOG_LEVEL"] = "OFF"

MISSING_LIBRARY = {
    "shared object": "install the system's package of it, as libgl1 and libglib2.0-0 for OpenCV on "
    "Debian and Ubuntu",
    "DLL": "install Microsoft's Visual C++ Redistributable (x64)",
    "dlopen": "install Python for this Mac's own processor, and the requirements with it",
}
"""Advice by a word of the dynamic loader's error message on Linux, Windows and macOS."""


def _missing_library(message: str) -> str:
    """Return what is missing and what to do; "" where that is another error."""
    for line in message.splitlines():
        for word, advice in MISSING_LIBRARY.items():
            if word in line:
                return f"{line}; {advice}"
    return ""


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print expected errors without a traceback, even during imports and at interpreter exit."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("stopped by Ctrl-C\n")
    elif issubclass(kind, ImportError) and (found := _missing_library(str(error))):
        sys.stderr.write(f"error: {found}\n")
    elif issubclass(kind, ModuleNotFoundError) and not str(error.name).startswith("pipeline"):
        advice = "pip install -r requirements.txt, or activate the environment that has it"
        sys.stderr.write(f"error: {error.name} is not installed; {advice}\n")
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _report
