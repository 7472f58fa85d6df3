"""What the four scripts share: one idea a module, each usable on its own."""

import os

# OpenCV reads these once, as it loads, whichever module loads it first. A header that claims a
# larger image is refused before it is decoded, and what OpenCV refuses is reported here instead.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**26))
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
