"""Arrays in, arrays out: decode, resize and augment images, by NumPy and OpenCV.

May import nothing of this package but errors, randomness and recipe."""
