"""A recipe's optimizer, learning rate and loss, as Keras's own classes.

With classes of our own, a checkpoint would not open in plain Keras. The rate is always a schedule,
even where it is constant, so that the optimizer's state has one form throughout a run.
"""

import keras
from keras.optimizers import schedules

from pipeline.nn.muon import orthogonalise_updates
from pipeline.recipe import Recipe


def learning_rate_schedule(
    recipe: Recipe, steps_per_epoch: int, constant: float | None = None
) -> schedules.LearningRateSchedule:
    """Return the learning rate as a function of the step, from 0.

    Args:
        recipe: Has the schedule.
        steps_per_epoch: Batches per epoch.
        constant: A constant rate instead; None: the recipe's.
    """
    if constant is not None:  # a decay by 1, for Keras has no constant schedule
        return schedules.ExponentialDecay(constant, decay_steps=1, decay_rate=1.0)
    values = recipe.optimizer
    if values.rate_drops:
        return schedules.PiecewiseConstantDecay(
            # the last steps before the drops: at a boundary itself Keras keeps the earlier rate
            [(epoch - 1) * steps_per_epoch - 1 for epoch, _ in values.rate_drops],
            [values.learning_rate, *(rate for _, rate in values.rate_drops)],
        )
    steps = recipe.epochs * steps_per_epoch
    warmup = min(round(values.warmup_epochs * steps_per_epoch), steps - 1)
    if values.schedule == "linear":
        return schedules.PolynomialDecay(values.learning_rate, steps, end_learning_rate=0.0)
    if not warmup:
        return schedules.CosineDecay(values.learning_rate, steps)
    return schedules.CosineDecay(
        0.0, steps - warmup, warmup_target=values.learning_rate, warmup_steps=warmup
    )


def compile_model(
    model: keras.Model, recipe: Recipe, steps_per_epoch: int, constant_rate: float | None = None
) -> None:
    """Give ``model`` its optimizer, loss and metrics.

    The optimizer is built at once: ``restore`` needs its variables before the first step.

    The other arguments are those of ``learning_rate_schedule``.
    """
    rate = learning_rate_schedule(recipe, steps_per_epoch, constant_rate)
    model.compile(
        optimizer=_optimizer(model, recipe, rate),
        # Samples of weight 0 pad the last batch (see HDF5Generator), and do not count.
        loss=keras.losses.CategoricalCrossentropy(
            label_smoothing=recipe.optimizer.label_smoothing, reduction="mean_with_sample_weight"
        ),
        weighted_metrics=[
            keras.metrics.CategoricalCrossentropy(name="cross_entropy"),
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            keras.metrics.TopKCategoricalAccuracy(5, name="top5_accuracy"),
        ],
    )
    model.optimizer.build(model.trainable_variables)


def _optimizer(
    model: keras.Model, recipe: Recipe, rate: schedules.LearningRateSchedule
) -> keras.Optimizer:
    values = recipe.optimizer
    settings = {"learning_rate": rate, "weight_decay": values.weight_decay or None}
    if values.name == "adam":
        optimizer = keras.optimizers.Adam(**settings)
    else:
        optimizer = keras.optimizers.SGD(**settings, momentum=values.momentum, nesterov=True)
    if values.name == "muon":
        orthogonalise_updates(optimizer, keras.DTypePolicy(recipe.network.dtype).compute_dtype)
    if values.weight_decay:
        optimizer.exclude_from_weight_decay(
            var_list=[v for v in model.trainable_variables if v.name != "kernel"]
        )
    return optimizer
