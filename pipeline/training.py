"""Train epoch by epoch, so that the end of any epoch is a point to go on from exactly.

All that is random in an epoch is set from (seed, epoch) before it begins; the rest of the state
lies in the model and its optimizer, and the checkpoint holds both.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import keras

from pipeline.affine import AffineRanges
from pipeline.augmentation import Augmentation
from pipeline.checkpoint import EpochCheckpoint, restore
from pipeline.devices import Share, Spread
from pipeline.errors import UserError
from pipeline.evaluation import evaluate
from pipeline.fused_norm import fuse_batch_norms
from pipeline.googlenet import googlenet
from pipeline.hdf5_dataset import HDF5Dataset
from pipeline.hdf5_generator import HDF5Generator
from pipeline.optimization import (
    averaged_weights,
    compile_model,
    learning_rate_schedule,
    swap_averages,
)
from pipeline.progress_report import ProgressReport, duration
from pipeline.randomness import random_stream
from pipeline.recipe import Recipe
from pipeline.run_log import RunLog
from pipeline.run_state import RunState
from pipeline.training_monitor import Monitor


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


def train(
    model: keras.Model,
    state: RunState,
    batches: HDF5Generator,
    val: HDF5Generator,
    checkpoint: EpochCheckpoint,
    monitors: Sequence[Monitor],
    log: RunLog,
    report: ProgressReport,
    spread: Spread,
) -> RunState:
    """Train from ``state.epoch`` to ``state.epochs``; return the state at the end.

    Each epoch ends with a checkpoint, then the curves. With averaged weights, validation and the
    checkpoint's model have the averages, and training goes on from the raw weights.

    Raises:
        UserError: The loss is no longer a number, or a file cannot be written.
    """
    while state.epoch < state.epochs:
        epoch = state.epoch + 1
        report.begin_epoch(state, len(batches))
        with spread.over_devices():
            try:
                values = _fit_epoch(model, batches, state, report)
            finally:
                report.end_epoch()
        on_one = spread.on_one_device(model)
        val.begin_epoch(epoch, state.recipe.image_size(epoch))
        with averaged_weights(on_one):
            scores = evaluate(on_one, val)
            _check_finite(epoch, values["loss"], scores.loss)
            state = state.after_epoch(
                values
                | {
                    "val_loss": scores.loss,
                    "val_accuracy": scores.rank1,
                    "val_top5_accuracy": scores.rank5,
                }
            )
            path = checkpoint.save(on_one, state)
        for monitor in monitors:
            monitor.update(state)
        rate = report.images_per_second
        waiting = batches.seconds_waited * rate / len(batches.dataset)
        log.write("epoch", epoch=epoch, images_per_second=round(rate, 1), waiting=round(waiting, 5))
        _print_epoch(state, report, len(batches.dataset), path.name)
        report.advise(state)
    return state


def train_along(
    model: keras.Model, state: RunState, batches: HDF5Generator, spread: Spread
) -> None:
    """Train as ``train`` does in the process that leads, and evaluate and write nothing."""
    while state.epoch < state.epochs:
        with spread.over_devices():
            _fit_epoch(model, batches, state)
        state = replace(state, epoch=state.epoch + 1)


def _fit_epoch(
    model: keras.Model,
    batches: HDF5Generator,
    state: RunState,
    *callbacks: keras.callbacks.Callback,
) -> dict[str, float]:
    """Train for one epoch; return its training metrics and its last learning rate."""
    epoch = state.epoch + 1
    batches.begin_epoch(epoch, state.recipe.image_size(epoch))
    _seed_dropout(model, state.seed, epoch)
    logs = model.fit(
        batches.for_fit(),
        initial_epoch=epoch - 1,
        epochs=epoch,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    ).history
    steps = len(batches)
    rate = learning_rate_schedule(state.recipe, steps, state.learning_rate)(epoch * steps - 1)
    return {
        "loss": logs["cross_entropy"][-1],
        "accuracy": logs["accuracy"][-1],
        "top5_accuracy": logs["top5_accuracy"][-1],
        "learning_rate": float(keras.ops.convert_to_numpy(rate)),
    }


def _check_finite(epoch: int, *losses: float) -> None:
    if not all(map(math.isfinite, losses)):
        raise UserError(
            f"the loss of epoch {epoch} is not a number any more; go back to an earlier "
            "checkpoint with -m and -e, and a lower rate with -l"
        )


def _seed_dropout(model: keras.Model, seed: int, epoch: int) -> None:
    """Set the generators that a checkpoint does not hold."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            state = layer.seed_generator.state
            stream = random_stream(seed, layer.name, epoch)
            state.assign(stream.integers(2**32, size=state.shape, dtype="uint32"))


def _print_epoch(state: RunState, report: ProgressReport, images: int, file: str) -> None:
    last = {name: values[-1] for name, values in state.history.items()}
    left = report.time_left(images / report.images_per_second, state.epoch)
    print(
        f"epoch {state.epoch}/{state.epochs}  "
        f"loss {last['loss']:.3f}  rank-1 {last['accuracy']:.2%}  |  "
        f"val loss {last['val_loss']:.3f}  rank-1 {last['val_accuracy']:.2%}  "
        f"rank-5 {last['val_top5_accuracy']:.2%}  |  "
        f"{report.images_per_second:,.0f} images/s, {duration(left)} left  ->  {file}",
        flush=True,
    )
