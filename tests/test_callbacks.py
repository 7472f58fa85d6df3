"""The callbacks as a Keras user meets them: ours in a ``fit`` of their own, Keras's beside ours."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import checkpoint

from pipeline.backend import import_keras

keras = import_keras()

from config import setup_config as config  # noqa: E402
from pipeline import callbacks  # noqa: E402
from pipeline.callbacks import (  # noqa: E402
    EpochCheckpoint,
    EpochStart,
    EvaluationModel,
    MomentumCorrection,
    PreciseBatchNorm,
    TrainingMonitor,
    Validation,
)
from pipeline.io.hdf5_dataset import open_split  # noqa: E402
from pipeline.io.hdf5_generator import HDF5Generator  # noqa: E402
from pipeline.nn.fused_norm import batch_norms  # noqa: E402
from pipeline.recipe import Augmentation  # noqa: E402
from pipeline.run.output_folder import NAME, checkpoint_name  # noqa: E402


@pytest.fixture
def batches(made_hdf5: Path) -> HDF5Generator:
    return HDF5Generator(open_split(made_hdf5, "train"), 16, shuffle=True)


@pytest.fixture
def val(made_hdf5: Path) -> HDF5Generator:
    return HDF5Generator(open_split(made_hdf5, "val"), 16)


@pytest.fixture
def model() -> keras.Model:
    """A model of somebody else's, of a few layers."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            layers.Rescaling(1 / 255),
            layers.AveragePooling2D(16),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dropout(0.0),
            layers.Dense(4, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "categorical_crossentropy", metrics=["accuracy"])
    return model


def test_momentum_of_a_scaled_loss_is_corrected(model: keras.Model) -> None:
    sgd = keras.optimizers.SGD(0.01, momentum=0.9)
    sgd.build(model.trainable_variables)
    sgd.momentums[0].assign(sgd.momentums[0] + 1)
    model.optimizer = keras.optimizers.LossScaleOptimizer(sgd)
    rate = keras.optimizers.schedules.ExponentialDecay(0.01, 1, 1.0)
    correction = MomentumCorrection(rate, last_rate=0.1)
    correction.set_model(model)
    correction.on_epoch_begin(0)
    np.testing.assert_allclose(sgd.momentums[0], 0.1, rtol=1e-6)


@pytest.mark.parametrize(("recipe_rate", "last_rate"), [(0.01, 0.1), (0.1, None)])
def test_momentum_is_corrected_where_the_rate_drops(
    recipe_rate: float, last_rate: float | None
) -> None:
    """The velocity as Goyal et al. 2017 have it, equation 10: scaled by new rate / old rate."""
    steps, m = 4, 0.9
    drops = keras.optimizers.schedules.PiecewiseConstantDecay([steps - 1], [recipe_rate, 0.01])
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(drops, momentum=m), "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    x, y = np.random.default_rng(0).normal(size=(2, steps, 2)).astype("f")
    y = y[:, :1]
    weights, velocity = np.asarray(model.layers[0].kernel, np.float64), np.zeros((2, 1))
    rate = last_rate or recipe_rate
    if last_rate:  # as a checkpoint restores it
        velocity += 0.3
        model.optimizer.momentums[0].assign(velocity)
    corrected = MomentumCorrection(drops, last_rate)
    model.fit(x, y, batch_size=1, epochs=2, shuffle=False, verbose=0, callbacks=[corrected])
    for step in range(2 * steps):
        new = float(drops(step))
        velocity *= new / rate
        rate, row = new, step % steps
        gradient = 2 * x[row][:, None] * (x[row] @ weights - y[row])
        velocity = m * velocity - rate * gradient
        weights = weights + velocity
    np.testing.assert_allclose(np.asarray(model.layers[0].kernel), weights, rtol=1e-4)


def test_momentum_correction_leaves_adam_and_rising_rates_alone(model: keras.Model) -> None:
    for optimizer, last in (
        (keras.optimizers.Adam(0.1), 9.0),
        (keras.optimizers.Muon(0.1), 9.0),
        (keras.optimizers.SGD(0.1, 0.9), 1e-9),
        (keras.optimizers.SGD(0.1, 0.9), 0.15),  # to two thirds: no drop, but a schedule's fall
    ):
        optimizer.build(model.trainable_variables)
        model.optimizer = optimizer
        for variable in optimizer.variables[2:]:
            variable.assign(variable + 1)
        before = [np.asarray(variable) for variable in optimizer.variables]
        rate = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 1.0)
        correction = MomentumCorrection(rate, last)
        correction.set_model(model)
        correction.on_epoch_begin(1)
        for variable, value in zip(optimizer.variables, before, strict=True):
            assert np.array_equal(np.asarray(variable), value)


@pytest.mark.parametrize(("images", "batch_size"), [(32, 16), (5120, 20)])
def test_norm_statistics_are_those_of_the_weights_evaluated(
    images: int, batch_size: int, batches: HDF5Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statistics of all images of whole batches without dropout, computed here by NumPy.

    Of 48 images in batches of 20, the last 8 are left out.
    """
    monkeypatch.setattr("pipeline.callbacks.precise_batch_norm.IMAGES", images)
    batches.batch_size = batch_size
    norm, dropout = keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)
    model = keras.Sequential(
        [keras.Input((64, 64, 3)), keras.layers.Conv2D(2, 8, strides=8), dropout, norm,
         keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4, "softmax")]
    )  # fmt: skip
    model.compile(keras.optimizers.SGD(1e-5), "categorical_crossentropy")
    features = keras.Model(model.inputs, model.layers[0].output)
    seen = []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
            seen_images = np.concatenate([batches[step][0] for step in range(2)])
            values = np.asarray(features(seen_images), np.float64).reshape(-1, 2)
            for running, expected in (
                (norm.moving_mean, values.mean(axis=0)),
                (norm.moving_variance, values.var(axis=0)),
            ):
                np.testing.assert_allclose(np.asarray(running), expected, rtol=1e-4)
            seen.append(np.asarray(norm.moving_mean))

    statistics = PreciseBatchNorm(batches)
    model.fit(batches, epochs=2, verbose=0, callbacks=[EvaluationModel([statistics, Look()])])
    assert (norm.momentum, dropout.rate) == (0.99, 0.5)
    assert len(seen) == 2
    assert not np.allclose(*seen)


def test_each_epoch_of_a_plain_fit_has_its_own_batches(
    model: keras.Model, made_hdf5: Path, val: HDF5Generator
) -> None:
    """Those of begin_epoch, also in a second ``fit``, which asks for some batches early."""
    train = open_split(made_hdf5, "train")
    changes = Augmentation(shift=0.2, flip="random")
    given = []

    class Noted(HDF5Generator):
        def __getitem__(self, step: int) -> tuple[np.ndarray, ...]:
            batch = super().__getitem__(step)
            given.append(batch)
            return batch

    kept = {"shuffle": True, "augmentation": changes}
    batches, expected = Noted(train, 16, **kept), HDF5Generator(train, 16, **kept)
    steps, in_order = len(batches), []
    for first, last in ((0, 2), (2, 3)):
        model.fit(batches, initial_epoch=first, epochs=last, shuffle=False, verbose=0,
                  validation_data=val)  # fmt: skip
        in_order += given[-(last - first) * steps :]
        given.clear()
    for epoch in (1, 2, 3):
        expected.begin_epoch(epoch)
        for step in range(steps):
            for ours, theirs in zip(in_order.pop(0), expected[step], strict=True):
                assert np.array_equal(ours, theirs)


def test_ours_in_a_fit_of_his_own(
    model: keras.Model, batches: HDF5Generator, val: HDF5Generator, tmp_path: Path
) -> None:
    history = model.fit(
        batches,
        epochs=3,
        shuffle=False,
        verbose=0,
        validation_data=val,
        callbacks=[EpochCheckpoint(tmp_path, keep=1), TrainingMonitor(tmp_path)],
    ).history
    assert json.loads((tmp_path / "metric_values.json").read_text()) == history
    assert (tmp_path / "training_plot.jpg").stat().st_size > 10_000
    worst_first = np.lexsort((-np.array(history["val_loss"]), history["val_accuracy"]))
    best = 1 + int(worst_first[-1])
    assert {int(path.name[6:9]) for path in tmp_path.glob("*.keras")} == {best, 3}
    saved = keras.saving.load_model(checkpoint(tmp_path, 3))
    for ours, theirs in zip(saved.weights, model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_ours_without_validation(
    model: keras.Model, batches: HDF5Generator, tmp_path: Path
) -> None:
    ours = [EpochCheckpoint(tmp_path), TrainingMonitor(tmp_path)]
    model.fit(batches, shuffle=False, verbose=0, callbacks=ours)
    assert (tmp_path / "epoch-001.keras").is_file()
    assert (tmp_path / "training_plot.jpg").is_file()


def test_checkpoints_hold_measured_statistics(trained: Path, made_hdf5: Path) -> None:
    """The script measures them after each epoch: measured again, they are the same."""
    model = keras.saving.load_model(checkpoint(trained, 3), compile=False)
    before = [[np.array(v) for v in norm.non_trainable_variables] for norm in batch_norms(model)]
    train = open_split(made_hdf5, "train")
    clean = HDF5Generator(train, 16, seed=42, shuffle=True, image_size=lambda epoch: 32)
    measure = PreciseBatchNorm(clean)
    for measured in (keras.models.clone_model(model), model):  # of two, the second too
        for norm in batch_norms(measured):
            norm.moving_mean.assign(norm.moving_mean + 1)
        measure.set_model(measured)
        measure.on_epoch_end(2)
    for (mean, variance), norm in zip(before, batch_norms(model), strict=True):
        np.testing.assert_allclose(norm.moving_mean, mean, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(norm.moving_variance, variance, rtol=1e-3, atol=1e-4)


def test_interrupted_measurement_leaves_the_momentum(
    batches: HDF5Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    norm = keras.layers.BatchNormalization(momentum=0.8)
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 3), norm])
    measure = PreciseBatchNorm(batches)
    measure.set_model(model)
    monkeypatch.delattr(HDF5Generator, "__getitem__")
    with pytest.raises(NotImplementedError):  # of Keras's base class
        measure.on_epoch_end(0)
    assert norm.momentum == 0.8


def test_thinning_leaves_other_files_alone(
    model: keras.Model, batches: HDF5Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And comes back to one that Windows would not delete, for somebody read it."""
    unlink, refused = Path.unlink, []

    def refuse_once(path: Path, **flags: bool) -> None:
        if path.name == "epoch-002.keras" and not refused:
            refused.append(path)
            raise PermissionError
        unlink(path, **flags)

    monkeypatch.setattr(Path, "unlink", refuse_once)
    names = ("5foo", "001-val_loss-0.138 (1)", "001-val_loss-0.138-copy", "001-my-val_loss-0.138")
    others = [tmp_path / f"epoch-{name}.keras" for name in names]
    for path in others:
        path.write_text("not a checkpoint, or somebody's copy of one")
    ours = [EpochCheckpoint(tmp_path, keep=1)]
    model.fit(batches, epochs=4, shuffle=False, verbose=0, callbacks=ours)
    assert set(others) < set(tmp_path.glob("*.keras"))
    assert refused
    # none is the best where none is validated
    assert not any((tmp_path / f"epoch-00{epoch}.keras").exists() for epoch in (1, 2, 3))


def test_thinning_leaves_what_an_earlier_fit_wrote(
    model: keras.Model, batches: HDF5Generator, tmp_path: Path
) -> None:
    for done in (0, 2):
        ours = [EpochCheckpoint(tmp_path, keep=1)]
        model.fit(batches, initial_epoch=done, epochs=done + 2, shuffle=False, verbose=0,
                  callbacks=ours)  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "epoch-002.keras",
        "epoch-004.keras",
    ]
    assert NAME.fullmatch(checkpoint_name(1, -0.25))  # the loss of a model of somebody else's


def test_metrics_that_are_no_number_or_missing_leave_gaps(tmp_path: Path) -> None:
    monitor = TrainingMonitor(tmp_path)
    monitor.on_epoch_end(0, {"loss": float("nan")})
    monitor.on_epoch_end(1, {"loss": 1.0, "val_loss": 2.0, "val_accuracy": 0.5})
    monitor.on_epoch_end(2, {"loss": 0.5, "f1": np.array([0.25, 0.75])})
    assert json.loads((tmp_path / "metric_values.json").read_text()) == {
        "loss": [None, 1.0, 0.5],
        "val_loss": [None, 2.0, None],
        "val_accuracy": [None, 0.5, None],
        "f1": [None, None, 0.5],  # of a value for each class, the mean
    }


def test_curves_of_a_fit_that_begins_later_are_numbered_as_its_checkpoints(tmp_path: Path) -> None:
    monitor = TrainingMonitor(tmp_path)
    monitor.on_epoch_end(2, {"loss": 1.0})
    monitor.on_epoch_end(4, {"loss": 0.5, "lr": 0.1})
    monitor.on_epoch_end(0, {"loss": 0.25, "lr": 0.1})  # a second fit, which counts from 1 again
    assert json.loads((tmp_path / "metric_values.json").read_text()) == {
        "loss": [None, None, 1.0, None, 0.5, 0.25],
        "lr": [None, None, None, None, 0.1, 0.1],
    }


def test_each_dropout_draws_anew_in_each_epoch_of_each_seed(batches: HDF5Generator) -> None:
    layers = [keras.Input((4,)), keras.layers.Dropout(0.5), keras.layers.Dropout(0.5)]
    model = keras.Sequential(layers)
    states = set()
    for seed in (1, 2):
        start = EpochStart(batches, seed)
        start.set_model(model)
        for epoch in (0, 1):
            start.on_epoch_begin(epoch)
            seeds = (layer.seed_generator.state for layer in model.layers)
            states |= {np.asarray(state).tobytes() for state in seeds}
    assert len(states) == 2 * 2 * 2


def test_his_after_ours_sees_our_validation(
    model: keras.Model, batches: HDF5Generator, val: HDF5Generator
) -> None:
    """A rate that makes the val loss rise: ReduceLROnPlateau, which watches it, lowers the rate."""
    seen = []
    model.optimizer.learning_rate = 1.0
    model.fit(
        batches,
        epochs=4,
        shuffle=False,
        verbose=0,
        callbacks=[
            EpochStart(batches, 0),
            EvaluationModel([Validation(val)]),
            keras.callbacks.ReduceLROnPlateau("val_loss", patience=1, min_delta=100),
            keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs)),
        ],
    )
    scores = model.evaluate(val, verbose=0, return_dict=True)
    assert seen[-1]["val_loss"] == pytest.approx(scores["loss"], rel=1e-4)
    assert seen[-1]["val_accuracy"] == pytest.approx(scores["accuracy"])
    assert [logs["learning_rate"] for logs in seen] == pytest.approx([1.0, 1.0, 0.1, 0.01])


@pytest.mark.parametrize(
    "callback",
    [
        callback
        for callback in vars(callbacks).values()
        if isinstance(callback, type) and issubclass(callback, keras.callbacks.Callback)
    ],
)
def test_none_makes_fit_wait_for_a_step(callback: type) -> None:
    """``fit`` reads the device after each step where a callback has one of these.

    One that is ``async_safe`` is called in a thread of its own.
    """
    for name in ("on_train_batch_end", "on_batch_end"):
        is_default = getattr(callback, name) is getattr(keras.callbacks.Callback, name)
        assert is_default or callback.async_safe


def test_a_phase_for_each_image_size() -> None:
    recipe = config.RECIPES["quick"].replaced({"image_sizes": ((1, 32), (7, 48), (10, 64))})
    assert list(recipe.phases(1, 11)) == [(1, 6), (7, 9), (10, 11)]
    assert list(recipe.phases(7, 8)) == [(7, 8)]
    assert list(recipe.phases(6, 7)) == [(6, 6), (7, 7)]
