"""GoogLeNet: Szegedy et al. 2014, "Going Deeper with Convolutions" (arXiv:1409.4842), Table 1.

Adapted to small images in three ways. The global average pooling takes whatever grid is left, so
the side of the images is free. Batch norm (Ioffe and Szegedy 2015, arXiv:1502.03167) stands in
for local response normalisation and for the auxiliary classifiers, which only served to train a
deep network without it. And a second stem keeps a finer grid:

======== =============== =========== ============ ===============
stem     first           64x64 grids parameters   multiply-adds
======== =============== =========== ============ ===============
"paper"  7x7, stride 2   8, 4, 2     6.2 million  129 million
"fine"   5x5, stride 1   16, 8, 4    6.2 million  498 million
======== =============== =========== ============ ===============

The paper prints the modules' weights in units of 1,024. Its figures for the first convolution
(2.7K, where 7x7x3x64 is 9,408), 4c (463K, by its own filters 509,440) and 5a (1072K, 1,042,432)
do not follow from its filter columns, and most others are off by a percent or so; the filter
columns are what is built here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import keras
from keras import layers

from pipeline.randomness import random_stream
from pipeline.recipe import Network


class InceptionFilters(NamedTuple):
    """One row of Table 1: the number of filters of each convolution of an inception module."""

    conv_1x1: int
    reduce_3x3: int
    conv_3x3: int
    reduce_5x5: int
    conv_5x5: int
    pool_projection: int


STAGES: Mapping[int, Mapping[str, InceptionFilters]] = {
    3: {
        "3a": InceptionFilters(64, 96, 128, 16, 32, 32),
        "3b": InceptionFilters(128, 128, 192, 32, 96, 64),
    },
    4: {
        "4a": InceptionFilters(192, 96, 208, 16, 48, 64),
        "4b": InceptionFilters(160, 112, 224, 24, 64, 64),
        "4c": InceptionFilters(128, 128, 256, 24, 64, 64),
        "4d": InceptionFilters(112, 144, 288, 32, 64, 64),
        "4e": InceptionFilters(256, 160, 320, 32, 128, 128),
    },
    5: {
        "5a": InceptionFilters(256, 160, 320, 32, 128, 128),
        "5b": InceptionFilters(384, 192, 384, 48, 128, 128),
    },
}
"""Table 1's inception modules; a 3x3 max pooling of stride 2 precedes each stage."""


class Stem(NamedTuple):
    """The first convolution's kernel side and stride."""

    kernel: int
    stride: int


STEMS: Mapping[str, Stem] = {"paper": Stem(7, 2), "fine": Stem(5, 1)}
STEM_FILTERS = (64, 64, 192)
"""Of the first convolution, and of the 1x1 and 3x3 convolutions that follow it."""
NARROWEST = 4
"""No convolution gets fewer filters than this, however thin the network."""


def googlenet(
    network: Network,
    classes: int,
    *,
    means: Sequence[float],
    input_size: int | None = None,
    seed: int = 0,
) -> keras.Model:
    """Build GoogLeNet.

    The model takes raw RGB pixels, 0 to 255, in uint8 or float, of shape (batch, side, side, 3),
    and gives float32 probabilities (batch, classes).

    Args:
        network: Its stem, width, regularisation and dtype; the defaults are the paper's.
        classes: How many to tell apart.
        means: Of the R, G and B channels, 0 to 255; subtracted first.
        input_size: Pixels a side, 32 or more; None takes any.
        seed: Draws the initial weights.
    """
    seeds = _seeds(seed)
    conv = _Convolution(network, seeds)
    dtype = network.dtype
    inputs = keras.Input((input_size, input_size, 3), name="pixels")
    x = layers.Normalization(
        mean=tuple(means), variance=(1.0, 1.0, 1.0), dtype="float32", name="mean_subtraction"
    )(inputs)
    x = _as_block(_stem, conv, x, STEMS[network.stem], "stem")
    for stage, modules in STAGES.items():
        x = _max_pool(x, stride=2, dtype=dtype, name=f"pool_{stage}")
        for name, filters in modules.items():
            x = _as_block(_inception, conv, x, filters, f"inception_{name}")
        if network.stage_dropout:
            x = _dropout(network.stage_dropout, next(seeds), dtype, f"dropout_{stage}")(x)
    x = layers.GlobalAveragePooling2D(dtype=dtype, name="average_pool")(x)
    if network.dropout:
        x = _dropout(network.dropout, next(seeds), dtype, "dropout")(x)
    outputs = layers.Dense(
        classes,
        activation="softmax",
        kernel_initializer=keras.initializers.GlorotUniform(next(seeds)),
        kernel_regularizer=_penalty(network.l2),
        dtype="float32",
        name="classifier",
    )(x)
    return keras.Model(inputs, outputs, name="googlenet")


@dataclass(frozen=True)
class _Convolution:
    """Convolution with batch norm and ReLU, as configured for the whole network."""

    network: Network
    seeds: Iterator[int]

    def __call__(
        self, x: keras.KerasTensor, filters: int, kernel: int, name: str, stride: int = 1
    ) -> keras.KerasTensor:
        x = layers.Conv2D(
            max(NARROWEST, round(filters * self.network.width)),
            kernel,
            strides=stride,
            padding="same",
            # Batch norm right after the convolution would take any bias away again.
            use_bias=self.network.relu_before_norm,
            kernel_initializer=keras.initializers.HeNormal(next(self.seeds)),
            kernel_regularizer=_penalty(self.network.l2),
            dtype=self.network.dtype,
            name=name,
        )(x)
        norm = layers.BatchNormalization(
            momentum=self.network.norm_momentum, dtype=self.network.dtype, name=f"{name}_norm"
        )
        relu = layers.ReLU(dtype=self.network.dtype, name=f"{name}_relu")
        return norm(relu(x)) if self.network.relu_before_norm else relu(norm(x))


def _as_block(
    build: Callable[..., keras.KerasTensor],
    conv: _Convolution,
    x: keras.KerasTensor,
    table_row: Stem | InceptionFilters,
    name: str,
) -> keras.KerasTensor:
    """Apply ``build`` to ``x`` as one layer of that name, a model of its own."""
    inputs = keras.Input(x.shape[1:], dtype=x.dtype, name="inputs")
    return keras.Model(inputs, build(conv, inputs, table_row), name=name)(x)


def _stem(conv: _Convolution, x: keras.KerasTensor, stem: Stem) -> keras.KerasTensor:
    first, reduce, second = STEM_FILTERS
    x = conv(x, first, stem.kernel, "conv_1", stride=stem.stride)
    x = _max_pool(x, stride=2, dtype=conv.network.dtype, name="pool_1")
    x = conv(x, reduce, 1, "conv_2_reduce")
    return conv(x, second, 3, "conv_2")


def _inception(
    conv: _Convolution, x: keras.KerasTensor, filters: InceptionFilters
) -> keras.KerasTensor:
    """Figure 2b of the paper."""
    by_1x1 = conv(x, filters.conv_1x1, 1, "conv_1x1")
    by_3x3 = conv(conv(x, filters.reduce_3x3, 1, "reduce_3x3"), filters.conv_3x3, 3, "conv_3x3")
    by_5x5 = conv(conv(x, filters.reduce_5x5, 1, "reduce_5x5"), filters.conv_5x5, 5, "conv_5x5")
    pooled = _max_pool(x, stride=1, dtype=conv.network.dtype, name="pool")
    projected = conv(pooled, filters.pool_projection, 1, "pool_projection")
    x = layers.Concatenate(dtype=conv.network.dtype, name="concatenate")(
        [by_1x1, by_3x3, by_5x5, projected]
    )
    return _excite(conv, x) if conv.network.squeeze_excite else x


def _excite(conv: _Convolution, x: keras.KerasTensor) -> keras.KerasTensor:
    """Weight each channel by what the whole image shows: Hu et al. 2018, section 3.

    The two dense layers are convolutions of one pixel, so that they count and draw as such.
    """
    channels = x.shape[-1]
    weights = layers.GlobalAveragePooling2D(
        keepdims=True, dtype=conv.network.dtype, name="squeeze"
    )(x)
    for filters, activation, name in (
        (max(NARROWEST, channels // conv.network.squeeze_excite), "relu", "excite_1"),
        (channels, "sigmoid", "excite_2"),
    ):
        weights = layers.Conv2D(
            filters,
            1,
            activation=activation,
            kernel_initializer=keras.initializers.HeNormal(next(conv.seeds)),
            kernel_regularizer=_penalty(conv.network.l2),
            dtype=conv.network.dtype,
            name=name,
        )(weights)
    return layers.Multiply(dtype=conv.network.dtype, name="weighted")([x, weights])


def _max_pool(x: keras.KerasTensor, stride: int, dtype: str, name: str) -> keras.KerasTensor:
    return layers.MaxPooling2D(3, strides=stride, padding="same", dtype=dtype, name=name)(x)


def _dropout(rate: float, seed: int, dtype: str, name: str) -> layers.Dropout:
    return layers.Dropout(rate, seed=seed, dtype=dtype, name=name)


def _seeds(seed: int) -> Iterator[int]:
    """Give each layer that draws numbers a seed of its own, without touching any global state."""
    stream = random_stream(seed, "layers")
    while True:
        yield int(stream.integers(2**31))


def _penalty(l2: float) -> keras.Regularizer | None:
    return keras.regularizers.L2(l2) if l2 else None
