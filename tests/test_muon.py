"""Muon against the singular value decomposition, and against Keras's SGD where SGD is meant."""

import numpy as np
import pytest

from pipeline.backend import import_keras

keras = import_keras()

from pipeline.nn.muon import orthogonalise_updates  # noqa: E402

RATE, MOMENTUM = 0.1, 0.9
SHAPES = {
    "tall": (3, 3, 8, 16),
    "wide": (1, 1, 6, 20),
    "largest": (3, 3, 192, 384),
    "dense": (12, 5),
    "bias": (7,),
}


def steps(
    gradients: list[dict[str, np.ndarray]], muon_dtype: str | None
) -> dict[str, list[np.ndarray]]:
    """Return each variable, which starts at zero, after each step by Muon, or else by SGD."""
    variables = {name: keras.Variable(np.zeros(s, "float32")) for name, s in SHAPES.items()}
    optimizer = keras.optimizers.SGD(RATE, MOMENTUM, nesterov=True)
    optimizer.build(list(variables.values()))
    if muon_dtype:
        orthogonalise_updates(optimizer, muon_dtype)
    seen = {name: [] for name in variables}
    for step in gradients:
        given = [keras.ops.convert_to_tensor(step[name]) for name in variables]
        optimizer.apply(given, list(variables.values()))
        for name, variable in variables.items():
            seen[name].append(keras.ops.convert_to_numpy(variable).copy())
    return seen


@pytest.fixture(scope="module")
def gradients() -> list[dict[str, np.ndarray]]:
    stream = np.random.default_rng(0)
    return [
        {name: stream.normal(size=shape).astype("float32") for name, shape in SHAPES.items()}
        for _ in range(3)
    ]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.1)])
@pytest.mark.parametrize("name", ["tall", "wide", "largest"])
def test_a_kernel_steps_equally_far_in_every_direction_of_sgds_step(
    name: str, dtype: str, tolerance: float, gradients: list[dict[str, np.ndarray]]
) -> None:
    made = steps(gradients, dtype)[name]
    momentum = np.zeros(SHAPES[name])
    before = np.zeros(SHAPES[name])
    for step, after in zip(gradients, made, strict=True):
        momentum = MOMENTUM * momentum - RATE * step[name]
        nesterov = MOMENTUM * momentum - RATE * step[name]
        left, _, right = np.linalg.svd(nesterov.reshape(-1, SHAPES[name][-1]), full_matrices=False)
        moved = (after - before).reshape(-1, SHAPES[name][-1]) / RATE
        in_its_directions = left.T @ moved @ right.T
        sizes = np.diag(in_its_directions)
        assert 0.6 < sizes.min() <= sizes.max() < 1.3
        np.testing.assert_allclose(in_its_directions, np.diag(sizes), atol=tolerance)
        before = after


@pytest.mark.parametrize("name", ["dense", "bias"])
def test_all_else_steps_by_sgd(name: str, gradients: list[dict[str, np.ndarray]]) -> None:
    for ours, usual in zip(
        steps(gradients, "float32")[name], steps(gradients, None)[name], strict=True
    ):
        np.testing.assert_array_equal(ours, usual)


def test_no_gradient_moves_nothing() -> None:
    nothing = [{name: np.zeros(shape, "float32") for name, shape in SHAPES.items()}]
    assert all(not values[0].any() for values in steps(nothing, "float32").values())
