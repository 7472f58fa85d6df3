"""From a recipe to its network."""

from collections.abc import Sequence

import keras

from pipeline.nn.googlenet import googlenet
from pipeline.recipe import Recipe


def build_network(
    recipe: Recipe, classes: int, means: Sequence[float], seed: int = 0
) -> keras.Model:
    """Build the network of a recipe; ``means`` are of the R, G and B channels, 0 to 255."""
    return googlenet(
        classes,
        means=tuple(means),
        stem=recipe.stem,
        width=recipe.width,
        relu_before_norm=recipe.relu_before_norm,
        l2=recipe.l2,
        stage_dropout=recipe.stage_dropout,
        dropout=recipe.dropout,
        squeeze_excite=recipe.squeeze_excite,
        norm_momentum=recipe.norm_momentum,
        dtype=recipe.dtype,
        seed=seed,
    )
