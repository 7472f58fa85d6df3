"""GoogLeNet: Szegedy et al. 2014, "Going Deeper with Convolutions" (arXiv:1409.4842), Table 1.

Departures from the paper: batch norm (Ioffe and Szegedy 2015, arXiv:1502.03167) replaces local
response normalisation, the auxiliary classifiers (section 5) are left out, and a second stem keeps
finer feature maps. Global average pooling takes maps of any size, so images may be of any size. For
64x64 pixels:

======== =============== ================ ============ ===============
stem     first conv      maps, stages 3-5 parameters   multiply-adds
======== =============== ================ ============ ===============
"paper"  7x7, stride 2   8, 4, 2          6.2 million  129 million
"fine"   5x5, stride 1   16, 8, 4         6.2 million  498 million
======== =============== ================ ============ ===============

"""

from collections.abc import Mapping, Sequence
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
"""Table 1's inception modules; a 3x3 max pooling of stride 2 precedes each stage.

The filter columns are what is built here. The table's parameters, in units of 1,024, do not follow
from them for the first convolution (2.7K, where 7x7x3x64 is 9,408), 4c (463K, by its filters
509,440) and 5a (1072K, 1,042,432), and most others are off by a percent or so.
"""


STEMS: Mapping[str, tuple[int, int]] = {"paper": (7, 2), "fine": (5, 1)}
"""The first convolution's kernel side and stride."""
STEM_FILTERS = (64, 64, 192)
"""Filters of the first convolution, and of the 1x1 and the 3x3 one after it."""
MIN_FILTERS = 4
"""No convolution gets fewer filters than this, however thin the network."""


def googlenet(
    network: Network, classes: int, *, means: Sequence[float], seed: int = 0
) -> keras.Model:
    """Build GoogLeNet.

    The model takes raw RGB pixels, 0 to 255, in uint8 or float, of shape (batch, side, side, 3),
    and gives float32 probabilities (batch, classes).

    Args:
        network: Its stem, width, regularisation and dtype; the defaults are the paper's, but for
            batch norm.
        classes: Number of classes.
        means: R, G and B means of the train images, 0 to 255; subtracted first.
        seed: Of the initial weights and of dropout.
    """
    build = _Builder(network, seed)
    inputs = keras.Input((None, None, 3), name="pixels")
    x = layers.Normalization(
        mean=tuple(means), variance=(1.0, 1.0, 1.0), dtype="float32", name="mean_subtraction"
    )(inputs)
    x = build.stem(x)
    for stage, modules in STAGES.items():
        x = build.max_pool(x, 2, f"pool_{stage}")
        if stage - 1 in STAGES:  # after the pooling: a maximum over dropped values is biased
            x = build.dropout(x, network.stage_dropout, f"dropout_{stage - 1}")
        for name, filters in modules.items():
            x = build.inception(x, filters, f"inception_{name}")
    x = build.dropout(x, network.stage_dropout, "dropout_5")
    x = layers.GlobalAveragePooling2D(dtype=network.dtype, name="average_pool")(x)
    x = build.dropout(x, network.dropout, "dropout")
    outputs = layers.Dense(
        classes,
        activation="softmax",
        kernel_initializer=keras.initializers.GlorotUniform(build.seed()),
        kernel_regularizer=build.regularizer(),
        dtype="float32",
        name="classifier",
    )(x)
    return keras.Model(inputs, outputs, name="googlenet")


class _Builder:
    """Builds layers with the dtype, regularizer and seeds of one network.

    The stem and each inception module are models within the model, so that a summary and a diagram
    show each as one block.
    """

    def __init__(self, network: Network, seed: int) -> None:
        self.network, self.dtype = network, network.dtype
        self.seeds = random_stream(seed, "layers")

    def seed(self) -> int:
        """Draw a seed for an initializer or a Dropout; no global state is used."""
        return int(self.seeds.integers(2**31))

    def regularizer(self) -> keras.Regularizer | None:
        return keras.regularizers.L2(self.network.l2) if self.network.l2 else None

    def stem(self, x: keras.KerasTensor) -> keras.KerasTensor:
        inputs = keras.Input(x.shape[1:], dtype=x.dtype, name="inputs")
        kernel, stride = STEMS[self.network.stem]
        first, reduce, second = STEM_FILTERS
        y = self.conv_block(inputs, first, kernel, "conv_1", stride)
        y = self.max_pool(y, 2, "pool_1")
        y = self.conv_block(y, reduce, 1, "conv_2_reduce")
        y = self.conv_block(y, second, 3, "conv_2")
        return keras.Model(inputs, y, name="stem")(x)

    def inception(
        self, x: keras.KerasTensor, filters: InceptionFilters, name: str
    ) -> keras.KerasTensor:
        """Inception module with dimension reduction (Figure 2b)."""
        inputs = keras.Input(x.shape[1:], dtype=x.dtype, name="inputs")
        by_1x1 = self.conv_block(inputs, filters.conv_1x1, 1, "conv_1x1")
        by_3x3 = self.conv_block(inputs, filters.reduce_3x3, 1, "reduce_3x3")
        by_3x3 = self.conv_block(by_3x3, filters.conv_3x3, 3, "conv_3x3")
        by_5x5 = self.conv_block(inputs, filters.reduce_5x5, 1, "reduce_5x5")
        by_5x5 = self.conv_block(by_5x5, filters.conv_5x5, 5, "conv_5x5")
        pooled = self.max_pool(inputs, 1, "pool")
        pooled = self.conv_block(pooled, filters.pool_projection, 1, "pool_projection")
        y = layers.Concatenate(dtype=self.dtype, name="concatenate")(
            [by_1x1, by_3x3, by_5x5, pooled]
        )
        return keras.Model(inputs, y, name=name)(x)

    def conv_block(
        self, x: keras.KerasTensor, filters: int, kernel: int, name: str, stride: int = 1
    ) -> keras.KerasTensor:
        """Convolution, batch norm and ReLU, the last two in the order of ``relu_before_norm``."""
        x = layers.Conv2D(
            max(MIN_FILTERS, round(filters * self.network.width)),
            kernel,
            stride,
            padding="same",
            # Batch norm right after the convolution would take any bias away again.
            use_bias=self.network.relu_before_norm,
            kernel_initializer=keras.initializers.HeNormal(self.seed()),
            kernel_regularizer=self.regularizer(),
            dtype=self.dtype,
            name=name,
        )(x)
        norm = layers.BatchNormalization(
            momentum=self.network.norm_momentum, dtype=self.dtype, name=f"{name}_norm"
        )
        relu = layers.ReLU(dtype=self.dtype, name=f"{name}_relu")
        return norm(relu(x)) if self.network.relu_before_norm else relu(norm(x))

    def max_pool(self, x: keras.KerasTensor, stride: int, name: str) -> keras.KerasTensor:
        return layers.MaxPooling2D(3, stride, padding="same", dtype=self.dtype, name=name)(x)

    def dropout(self, x: keras.KerasTensor, rate: float, name: str) -> keras.KerasTensor:
        if not rate:
            return x
        return layers.Dropout(rate, seed=self.seed(), dtype=self.dtype, name=name)(x)
