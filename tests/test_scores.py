"""Scores, rates, steps and curves against references of other makers."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from conftest import checkpoint
from sklearn.metrics import log_loss, top_k_accuracy_score

from config.setup_config import RECIPES
from pipeline.backend import import_keras

keras = import_keras()

from pipeline.classes import Classes  # noqa: E402
from pipeline.errors import UserError  # noqa: E402
from pipeline.evaluation.metrics import (  # noqa: E402
    Predictor,
    evaluate,
    predict,
    rank_of_truth,
    score,
)
from pipeline.evaluation.predictions import best_predictions  # noqa: E402
from pipeline.io.hdf5_dataset import open_split  # noqa: E402
from pipeline.io.hdf5_generator import HDF5Generator  # noqa: E402
from pipeline.nn.optimizers import (  # noqa: E402
    compile_model,
    learning_rate_schedule,
)
from pipeline.plotting.curves import changes, plot_history  # noqa: E402
from pipeline.recipe import Optimizer, Recipe, choose_recipe  # noqa: E402
from pipeline.run.checkpoint import read_state  # noqa: E402


def random_probabilities(images: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    stream = np.random.default_rng(5)
    logits = stream.normal(size=(images, classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities, stream.integers(classes, size=images)


def test_ranks_and_loss_agree_with_scikit_learn() -> None:
    probabilities, truth = random_probabilities(1000, 20)
    ranks = rank_of_truth(probabilities, truth)
    for k in (1, 5):
        expected = top_k_accuracy_score(truth, probabilities, k=k, labels=range(20))
        assert (ranks < k).mean() == pytest.approx(expected)
    expected = log_loss(truth, probabilities, labels=range(20))
    scores = score(probabilities, truth)
    assert (scores.rank1, scores.rank5) == ((ranks < 1).mean(), (ranks < 5).mean())
    assert (scores.images, scores.loss) == (1000, pytest.approx(expected))


def test_metrics_of_training_agree_with_scikit_learn() -> None:
    stream = np.random.default_rng(0)
    x, truth = stream.normal(size=(64, 5)).astype("f"), np.arange(64) % 20
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(20, "softmax")])
    compile_model(model, RECIPES["demo"], steps_per_epoch=9)
    predicted = model.predict_on_batch(x)
    logs = model.train_on_batch(x, np.eye(20, dtype="f")[truth], return_dict=True)
    for name, k in (("accuracy", 1), ("top5_accuracy", 5)):
        expected = top_k_accuracy_score(truth, predicted, k=k, labels=range(20))
        assert logs[name] == pytest.approx(expected)
    assert logs["cross_entropy"] == pytest.approx(log_loss(truth, predicted), rel=1e-4)


def test_five_best_predictions_come_in_order() -> None:
    probabilities, _ = random_probabilities(10, 20)
    names = tuple(map(str, range(20)))
    for row, best in zip(
        probabilities, best_predictions(probabilities, Classes(names, names)), strict=True
    ):
        assert [prediction.probability for prediction in best] == sorted(row)[:-6:-1]
        assert [row[int(prediction.class_id)] for prediction in best] == sorted(row)[:-6:-1]


def test_a_model_that_knows_nothing_is_not_flattered() -> None:
    truth = np.arange(10)
    assert (rank_of_truth(np.full((10, 10), 0.1), truth) == 9).all()
    assert (rank_of_truth(np.full((10, 10), np.nan), truth) == 9).all()


def test_predictor_averages_with_the_mirrored_images() -> None:
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4, "softmax")]
    )
    images = np.random.default_rng(2).integers(256, size=(3, 8, 8, 3), dtype=np.uint8)
    both = [np.asarray(model(x / 1.0)) for x in (images, np.flip(images, axis=2))]
    flipped = Predictor(model, batch_size=5, flip=True)(images)
    assert np.allclose(flipped, np.mean(both, axis=0), atol=1e-6)


def rates(recipe: Recipe, steps: int, epochs: int, constant: float | None = None) -> list[float]:
    schedule = learning_rate_schedule(recipe, steps, constant)
    return [float(schedule(step)) for step in range(steps * epochs)]


def test_a_batch_is_at_most_the_split(made_hdf5: Path) -> None:
    shapes = []
    inputs = keras.Input((64, 64, 3))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    model.predict_on_batch = lambda images: shapes.append(images.shape) or np.full((20, 4), 0.25)
    predict(Predictor(model, batch_size=1000), HDF5Generator(open_split(made_hdf5, "val"), 1000))
    assert shapes == [(20, 64, 64, 3)]


def test_evaluation_knows_shuffled_labels(made_hdf5: Path) -> None:
    """The last of the batches is smaller."""
    pixels = keras.Input((64, 64, 3))
    logits = keras.layers.Dense(4, "softmax")(keras.layers.GlobalAveragePooling2D()(pixels))
    model, val = keras.Model(pixels, logits), open_split(made_hdf5, "val")
    expected = evaluate(model, HDF5Generator(val, 7))
    found = evaluate(model, HDF5Generator(val, 7, shuffle=True, seed=1))
    assert (found.rank1, found.images) == (expected.rank1, len(val))
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)


def test_logits_are_no_probabilities(made_hdf5: Path) -> None:
    pixels = keras.Input((64, 64, 3))
    logits = keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(pixels))
    model = keras.Model(pixels, logits)
    with pytest.raises(UserError, match="end it with a softmax"):
        evaluate(model, HDF5Generator(open_split(made_hdf5, "val"), 7))


def test_published_lowers_its_rate_after_the_published_epochs() -> None:
    steps = 7
    by_epoch = np.reshape(rates(RECIPES["published"], steps, 60), (60, steps))
    expected = [1e-3] * 26 + [1e-4] * 14 + [1e-5] * 12 + [1e-6] * 8
    assert np.allclose(by_epoch, np.array(expected)[:, None])


def test_cosine_rises_then_falls_to_zero() -> None:
    recipe = RECIPES["demo"].replaced(
        {"epochs": 10, "optimizer.warmup_epochs": 2, "optimizer.learning_rate": 0.5}
    )
    values = rates(recipe, 10, 10)
    assert np.allclose(np.diff(values[:20]), 0.5 / 20)
    step = np.arange(20, 100)
    assert np.allclose(values[20:], 0.25 * (1 + np.cos(np.pi * (step - 20) / 80)), atol=1e-6)
    almost_all = recipe.replaced({"epochs": 2, "optimizer.warmup_epochs": 1.99})
    assert rates(almost_all, 10, 2)[-1] == pytest.approx(0.5)  # and there is a step to fall in


def test_linear_schedule_falls_to_zero() -> None:
    recipe = RECIPES["published"].replaced(
        {"epochs": 3, "optimizer.rate_drops": (), "optimizer.schedule": "linear"}
    )
    assert np.allclose(rates(recipe, 4, 3), 1e-3 * (1 - np.arange(12) / 12))
    with pytest.raises(ValueError, match="cosine schedule alone"):
        recipe.replaced({"optimizer.warmup_epochs": 1}).check()
    drops = {"optimizer.warmup_epochs": 1, "optimizer.rate_drops": ((2, 1e-3),)}
    with pytest.raises(ValueError, match="without rate_drops"):
        choose_recipe(RECIPES, "demo").replaced(drops).check()
    with pytest.raises(ValueError, match="must be below epochs"):
        RECIPES["demo"].replaced({"epochs": 1}).check()
    with pytest.raises(ValueError, match="must begin with epoch 1"):
        RECIPES["demo"].replaced({"image_sizes": ((2, 64),)}).check()
    with pytest.raises(ValueError, match="muon needs a momentum"):
        RECIPES["quick"].replaced({"optimizer.momentum": 0.0}).check()


def test_each_value_of_an_optimizer_leads_elsewhere() -> None:
    """One step from the same weights, on the same batch."""
    stream = np.random.default_rng(0)
    pixels, labels = stream.normal(size=(8, 6, 6, 3)), np.eye(4)[stream.integers(4, size=8)]
    sgd = {"optimizer.name": "sgd", "optimizer.warmup_epochs": 0, "optimizer.weight_decay": 0.0}
    ends = []
    for values in (
        {},
        {"optimizer.momentum": 0.5},
        {"optimizer.weight_decay": 0.1},
        {"optimizer.label_smoothing": 0.3},
        {"optimizer.name": "muon"},
        {"optimizer.name": "adam"},
    ):
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [
                keras.Input((6, 6, 3)),
                keras.layers.Conv2D(5, 3),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(4, "softmax"),
            ]
        )
        compile_model(model, RECIPES["demo"].replaced({**sgd, **values}), steps_per_epoch=9)
        model.train_on_batch(pixels, labels)
        ends.append(np.asarray(model.layers[0].kernel))
    for first, second in itertools.combinations(ends, 2):
        assert not np.allclose(first, second, atol=1e-6)


def test_rate_set_by_hand_is_exact_and_constant() -> None:
    assert set(rates(RECIPES["quick"], 5, 3, constant=0.1)) == {float(np.float32(0.1))}


def small_model() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(6, kernel_initializer=keras.initializers.HeNormal(1)),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3, "softmax", kernel_initializer=keras.initializers.HeNormal(2)),
        ]
    )


def test_images_of_no_weight_count_nothing() -> None:
    """As those that pad a batch of several devices."""
    recipe = Recipe(epochs=2, batch_size=4, optimizer=Optimizer(learning_rate=0.2))
    stream = np.random.default_rng(0)
    x, y = stream.normal(size=(6, 5)).astype("f"), np.eye(3, dtype="f")[[0, 1, 2, 0, 1, 2]]
    found = []
    for batch in ((x[:4], y[:4]), (x, y, np.float32([1, 1, 1, 1, 0, 0]))):
        draw = keras.initializers.HeNormal(2)
        layer = keras.layers.Dense(3, "softmax", kernel_initializer=draw)
        model = keras.Sequential([keras.Input((5,)), layer])
        compile_model(model, recipe, steps_per_epoch=3)
        logs = model.train_on_batch(*batch, return_dict=True)
        found.append((logs["cross_entropy"], logs["accuracy"], *map(np.array, model.weights)))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "muon"])
def test_sgd_follows_the_formula(name: str) -> None:
    """Nesterov momentum as Sutskever et al. 2013 have it, and decay of kernels alone.

    Muon steps so on all but convolutions.
    """
    values = Optimizer(name=name, learning_rate=0.2, weight_decay=0.05)
    recipe = Recipe(epochs=2, batch_size=4, optimizer=values)
    model = small_model()
    compile_model(model, recipe, steps_per_epoch=3)
    stream = np.random.default_rng(0)
    x, y = stream.normal(size=(4, 5)).astype("f"), np.eye(3, dtype="f")[[0, 1, 2, 0]]
    weights = [np.float64(keras.ops.convert_to_numpy(w)) for w in model.trainable_variables]
    velocity = [np.zeros_like(w) for w in weights]
    for step in range(3):
        gradients = gradients_at(model, weights, x, y)
        rate = 0.2 * (1 + np.cos(np.pi * step / 6)) / 2
        for i, (variable, gradient) in enumerate(
            zip(model.trainable_variables, gradients, strict=True)
        ):
            if variable.name == "kernel":
                weights[i] = weights[i] * (1 - rate * 0.05)
            velocity[i] = 0.9 * velocity[i] - rate * gradient
            weights[i] = weights[i] + 0.9 * velocity[i] - rate * gradient
    model = small_model()
    compile_model(model, recipe, steps_per_epoch=3)
    for _ in range(3):
        model.train_on_batch(x, y)
    assert close(model.trainable_variables, weights)


def gradients_at(
    model: keras.Model, weights: list[np.ndarray], x: np.ndarray, y: np.ndarray
) -> list[np.ndarray]:
    import tensorflow as tf

    for variable, value in zip(model.trainable_variables, weights, strict=True):
        variable.assign(value)
    with tf.GradientTape() as tape:
        loss = model.loss(y, model(x, training=True))
    return [np.array(g) for g in tape.gradient(loss, [v.value for v in model.trainable_variables])]


def close(variables: list[keras.Variable], values: list[np.ndarray]) -> bool:
    return all(
        np.allclose(v, value, rtol=1e-4, atol=1e-5)
        for v, value in zip(variables, values, strict=True)
    )


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_survive_json(name: str) -> None:
    recipe = choose_recipe(RECIPES, name)
    stored = json.loads(json.dumps(msgspec.to_builtins(recipe)))
    assert msgspec.convert(stored, Recipe) == recipe == RECIPES[name]


@pytest.mark.parametrize(
    ("name", "by_hand", "expected"),
    [
        ("published", {}, {27: "rate 0.0001", 41: "rate 1e-05", 53: "rate 1e-06"}),
        ("published", dict.fromkeys(range(21, 61), 1e-4), {21: "rate 0.0001"}),
        ("cosine", {}, {4: "48 px"}),
        ("cosine", {4: 0.02, 5: 0.02, 6: 0.003}, {4: "48 px, rate 0.02", 6: "rate 0.003"}),
    ],
)
def test_changes_are_drops_hands_and_sizes(
    name: str, by_hand: dict[int, float], expected: dict[int, str], trained: Path
) -> None:
    sizes = {"epochs": 6, "image_sizes": ((1, 32), (4, 48)), "optimizer.warmup_epochs": 1}
    recipe = RECIPES["published"] if name == "published" else RECIPES["demo"].replaced(sizes)
    planned = rates(recipe, 7, recipe.epochs)[6::7]
    shown = [by_hand.get(epoch, rate) for epoch, rate in enumerate(planned, start=1)]
    state = read_state(checkpoint(trained, 3))
    history = dict.fromkeys(state.history, shown)
    done = replace(state, recipe=recipe, epoch=recipe.epochs, history=history)
    assert changes(done, 7) == expected


def test_plot_marks_changes_and_clips_outliers() -> None:
    curves = {"loss": [2.0, 1.5, 1.0], "val_loss": [14.4, 1.6, 1.2], "learning_rate": [0.1] * 3}
    figure = plot_history(curves, "title", {3: "48 px", 9: "rate 0.1"})
    for axes in figure.axes[:2]:
        lines = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"]
        assert lines == [2.5]
    loss = figure.axes[0]
    assert loss.get_ylim()[1] == 3.0
    beyond = loss.lines[-2]
    assert beyond.get_label() == "validation beyond the axis, up to 14.4"
    assert list(beyond.get_xdata()) == [1]
