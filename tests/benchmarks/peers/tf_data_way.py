"""tf.data as its documentation shows it: files, decoding in parallel, one affine map a batch."""

from collections.abc import Callable, Sequence
from math import pi
from typing import Any

from pipeline.backend import import_keras

EPOCHS = 3
"""So many, for the first steps of each run are slower."""


def loading(images: Sequence[tuple[str, int]]) -> Callable[[], int]:
    """Return a round that goes through all images ``EPOCHS`` times, and leaves nothing running."""
    import_keras()
    import tensorflow as tf

    def decode(name: Any, label: Any) -> tuple[Any, Any]:
        return tf.io.decode_jpeg(tf.io.read_file(name), channels=3), label

    def move(pixels: Any, labels: Any) -> tuple[Any, Any]:
        count = tf.shape(pixels)[:1]

        def uniform(low: float, high: float) -> Any:
            return tf.random.uniform(count, low, high)

        angle, shear = uniform(-pi / 6, pi / 6), uniform(-0.2 * pi / 180, 0.2 * pi / 180)
        zoom_x = uniform(0.8, 1.2) * tf.where(uniform(0, 1) < 0.5, -1.0, 1.0)
        zoom_y = uniform(0.8, 1.2)
        across = tf.cos(angle) * zoom_x, tf.sin(angle) * zoom_x
        down = -tf.sin(angle + shear) * zoom_y, tf.cos(angle + shear) * zoom_y
        offset = [
            31.5 + uniform(-12.8, 12.8) - 31.5 * (across[axis] + down[axis]) for axis in (0, 1)
        ]
        zero = tf.zeros_like(angle)
        transforms = [across[0], down[0], offset[0], across[1], down[1], offset[1], zero, zero]
        moved = tf.raw_ops.ImageProjectiveTransformV3(
            images=pixels,
            transforms=tf.stack(transforms, axis=1),
            output_shape=tf.constant([64, 64]),
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="NEAREST",
        )
        return moved, labels

    names, labels = zip(*images, strict=True)
    batches = (
        tf.data.Dataset.from_tensor_slices((list(names), list(labels)))
        .shuffle(len(images))
        .repeat(EPOCHS)
        .map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(64)
        .map(move, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )

    def do_round() -> int:
        return sum(len(pixels) for pixels, _ in batches)

    return do_round
