"""The network and the batches of a run, and ``fit`` over its epochs.

All that is random in an epoch is set from (seed, epoch) before it begins (see EpochStart). The rest
of the state is the model's and its optimizer's, and a checkpoint holds both. So a run resumes
exactly after any epoch.
"""

from collections.abc import Sequence

import keras

from pipeline.io.hdf5_dataset import HDF5Dataset
from pipeline.io.hdf5_generator import HDF5Generator
from pipeline.nn.fused_norm import fuse_batch_norms
from pipeline.nn.googlenet import googlenet
from pipeline.nn.optimizers import compile_model
from pipeline.run.state import RunState


def build_model(state: RunState, steps_per_epoch: int) -> keras.Model:
    """Build and compile a run's network, its weights drawn by the run's seed."""
    network = state.recipe.network
    model = googlenet(network, len(state.classes), means=state.means, seed=state.seed)
    fuse_batch_norms(model)  # faster on TensorFlow, and equal up to rounding
    compile_model(model, state.recipe, steps_per_epoch, state.learning_rate)
    return model


def training_batches(
    train: HDF5Dataset, state: RunState, shard: range | None = None
) -> HDF5Generator:
    """Return the shuffled and augmented batches that a run trains on, or a shard of each."""
    return HDF5Generator(
        train,
        state.batch_size,
        seed=state.seed,
        shuffle=True,
        image_size=state.recipe.image_size,
        augmentation=state.recipe.augmentation,
        shard=shard,
    )


def fit_phases(
    model: keras.Model,
    batches: HDF5Generator,
    state: RunState,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Train the epochs after ``state.epoch``, up to ``state.epochs``: a ``fit`` per image size.

    On TensorFlow the size cannot change within a ``fit``.

    Raises:
        UserError: A batch could not be made.
    """
    for first, last in state.recipe.phases(state.epoch + 1, state.epochs):
        # ``fit`` may ask for a batch, to see its shapes, before ``EpochStart``
        batches.begin_epoch(first)
        try:
            model.fit(
                batches.for_fit(),
                initial_epoch=first - 1,
                epochs=last,
                shuffle=False,
                verbose=0,
                callbacks=list(callbacks),
            )
        except Exception as error:
            if batches.failure:
                raise batches.failure from error
            raise
        if model.stop_training:
            break
