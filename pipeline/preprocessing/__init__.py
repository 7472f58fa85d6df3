"""Arrays in, arrays out: decode, resize and augment images, by NumPy and OpenCV.

May import no other folder of this package."""
