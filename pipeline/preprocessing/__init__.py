"""Arrays in, arrays out: decode, resize and augment images, by NumPy, OpenCV and simplejpeg.

May import no other folder of this package."""
