"""Turn a recipe into a compiled network and its batches, and fit it.

All that is random in an epoch is set from (seed, epoch) before it begins (see EpochStart); the rest
of the state lies in the model and its optimizer, and the checkpoint holds both. So the end of any
epoch is a point to resume from exactly.
"""

from collections.abc import Sequence
from pathlib import Path

import keras

from pipeline.affine import AffineRanges
from pipeline.augmentation import Augmentation
from pipeline.checkpoint import restore
from pipeline.devices import Share
from pipeline.fused_norm import fuse_batch_norms
from pipeline.googlenet import googlenet
from pipeline.hdf5_dataset import HDF5Dataset
from pipeline.hdf5_generator import HDF5Generator
from pipeline.optimization import compile_model, swap_averages
from pipeline.recipe import Recipe
from pipeline.run_state import RunState


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


def build_model(state: RunState, steps: int) -> keras.Model:
    """Build and compile the network of a run, with initial weights drawn by its seed.

    Args:
        state: The run.
        steps: Batches an epoch.
    """
    model = build_network(state.recipe, len(state.class_ids), state.means, state.seed)
    fuse_batch_norms(model)
    compile_model(model, state.recipe, steps, state.learning_rate)
    return model


def go_on_from(model: keras.Model, path: Path) -> None:
    """Load a checkpoint's weights, raw where it has averages too, and its optimizer state.

    Raises:
        UserError: It is damaged, incomplete, or of another network.
    """
    restore(model, path)
    swap_averages(model)


def training_batches(
    train: HDF5Dataset, state: RunState, share: Share | None = None
) -> HDF5Generator:
    """Return the shuffled and augmented batches that a run trains on, or a share of each."""
    recipe = state.recipe
    return HDF5Generator(
        train,
        state.batch_size,
        seed=state.seed,
        shuffle=True,
        augmentation=augmentation(recipe),
        flip=recipe.flip,
        share=share,
    )


def augmentation(recipe: Recipe) -> Augmentation:
    """Return how a recipe changes training images."""
    return Augmentation(
        ranges=AffineRanges(recipe.rotation, recipe.shift, recipe.shear, recipe.zoom),
        trivial=recipe.trivial_augment,
        erasing=recipe.erasing,
        cutmix=recipe.cutmix,
        mixup=recipe.mixup,
    )


def fit_phases(
    model: keras.Model,
    batches: HDF5Generator,
    state: RunState,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Train from ``state.epoch`` to ``state.epochs``: a ``fit`` for each image size.

    On TensorFlow the size cannot change within a ``fit``.
    """
    for first, last in state.recipe.phases(state.epoch + 1, state.epochs):
        batches.begin_epoch(first, state.recipe.image_size(first))  # ``fit`` may look ahead
        model.fit(
            batches.for_fit(),
            initial_epoch=first - 1,
            epochs=last,
            shuffle=False,
            verbose=0,
            callbacks=list(callbacks),
        )
        if model.stop_training:
            break
