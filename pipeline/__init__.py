"""What the four scripts share: one idea a module, each usable on its own."""

import os
import sys
from types import TracebackType

# OpenCV reads these once, as it loads, whichever module loads it first. A header that claims a
# larger image is refused before it is decoded, and what OpenCV refuses is reported here instead.
os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(2**28)  # phones have up to 200 million
os.environ["OPENCV_LOG_LEVEL"] = "OFF"


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Spare a person a traceback of what is expected, also as modules load and the process ends."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("stopped by Ctrl-C\n")
    elif issubclass(kind, ImportError) and "shared object" in str(error):
        libraries = "as libgl1 and libglib2.0-0 for OpenCV on Debian and Ubuntu"
        sys.stderr.write(f"error: {error}; install the system's package of it, {libraries}\n")
    elif issubclass(kind, ModuleNotFoundError) and not str(error.name).startswith("pipeline"):
        advice = "pip install -r requirements.txt, or activate the environment that has it"
        sys.stderr.write(f"error: {error.name} is not installed; {advice}\n")
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _report
