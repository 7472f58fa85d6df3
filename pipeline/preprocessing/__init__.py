"""Arrays in, arrays out: decode, resize and augment images, by NumPy and OpenCV.

May import no other folder of this package."""

import cv2

cv2.setNumThreads(1)  # batches are made by threads of ours: OpenCV's would spin, and gain nothing
