"""The network against Table 1 of the paper, by formulas of its own."""

import numpy as np
import pytest

from pipeline.backend import import_keras

keras = import_keras()

from pipeline.nn.fused_norm import batch_norms, fuse_batch_norms  # noqa: E402
from pipeline.nn.googlenet import googlenet  # noqa: E402
from pipeline.plotting.diagram import multiply_adds, place_layers  # noqa: E402
from pipeline.recipe import Network  # noqa: E402

# Copied from the paper: input channels, #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj.
TABLE_1 = {
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}
MEANS = (122.0, 114.0, 101.0)


def kernels(layer: keras.Layer) -> int:
    return sum(int(np.prod(v.shape)) for v in layer.trainable_variables if v.name == "kernel")


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return googlenet(Network(), 200, means=MEANS)


@pytest.mark.parametrize("name", TABLE_1)
def test_inception_weights_follow_from_the_filter_columns(name: str, network: keras.Model) -> None:
    cin, c1, r3, c3, r5, c5, proj = TABLE_1[name]
    weights = cin * (c1 + r3 + r5 + proj) + 9 * r3 * c3 + 25 * r5 * c5
    block = network.get_layer(f"inception_{name}")
    assert kernels(block) == weights
    assert block.output.shape[-1] == c1 + c3 + c5 + proj
    inputs = {place.layer.name: place.inputs for place in place_layers(block, block.input_shape)}
    pool = block.get_layer("pool")
    assert inputs["pool_projection"] == ("pool",)
    assert isinstance(pool, keras.layers.MaxPooling2D)
    assert (pool.pool_size, pool.strides) == ((3, 3), (1, 1))


def test_stem_and_classifier_weights(network: keras.Model) -> None:
    assert kernels(network.get_layer("stem")) == 7 * 7 * 3 * 64 + 64 * 64 + 3 * 3 * 64 * 192
    assert kernels(network.get_layer("classifier")) == 1024 * 200


def test_dropout_follows_a_stages_pooling() -> None:
    """As in the published code; before the pooling, its maximum would miss the dropped values."""
    model = googlenet(Network(width=0.07, stage_dropout=0.25, dropout=0.38), 4, means=MEANS)
    names = [layer.name for layer in model.layers]
    for before, dropout, after, rate in (
        ("pool_4", "dropout_3", "inception_4a", 0.25),
        ("pool_5", "dropout_4", "inception_5a", 0.25),
        ("inception_5b", "dropout_5", "average_pool", 0.25),
        ("average_pool", "dropout", "classifier", 0.38),
    ):
        place = names.index(dropout)
        assert names[place - 1 : place + 2] == [before, dropout, after]
        assert model.layers[place].rate == rate


def test_penalty_and_momentum_reach_every_layer() -> None:
    model = googlenet(Network(width=0.07, l2=0.1, norm_momentum=0.8), 4, means=MEANS)
    assert len(model.losses) == 58  # 57 convolutions and the classifier
    kernels = [np.asarray(v) for v in model.trainable_variables if v.name == "kernel"]
    squares = sum((kernel**2).sum() for kernel in kernels)
    assert float(sum(model.losses)) == pytest.approx(0.1 * squares, rel=1e-4)
    assert [norm.momentum for norm in batch_norms(model)] == [0.8] * 57


@pytest.mark.parametrize(
    ("stem", "grids", "millions"), [("paper", (8, 4, 2), 129), ("fine", (16, 8, 4), 498)]
)
def test_stems_leave_the_grids_and_cost_they_promise(
    stem: str, grids: tuple[int, ...], millions: int
) -> None:
    model = googlenet(Network(stem=stem), 200, means=MEANS)
    shapes = {p.layer.name: p.output_shape for p in place_layers(model, (None, 64, 64, 3))}
    assert tuple(shapes[f"inception_{name}"][1] for name in ("3b", "4e", "5b")) == grids
    assert round(multiply_adds(model, (None, 64, 64, 3)) / 1e6) == millions
    assert round(model.count_params() / 1e5) == 62


def test_multiply_adds_agree_with_tensorflows_count() -> None:
    """TensorFlow's profiler counts a multiply-add as two operations, and pooling and norm too."""
    import tensorflow as tf
    from tensorflow.python.profiler.model_analyzer import profile
    from tensorflow.python.profiler.option_builder import ProfileOptionBuilder

    model = googlenet(Network(width=0.25), 200, means=MEANS)
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(
        tf.TensorSpec((1, 64, 64, 3))
    )
    options = ProfileOptionBuilder(ProfileOptionBuilder.float_operation()).with_empty_output()
    operations = profile(function.graph, options=options.build()).total_float_ops
    ours = 2 * multiply_adds(model, (None, 64, 64, 3))
    assert ours <= operations <= 1.25 * ours


def test_pixels_of_any_type_and_size_give_probabilities() -> None:
    model = googlenet(Network(width=0.1, dtype="mixed_bfloat16"), 7, means=MEANS)
    pixels = np.random.default_rng(0).integers(256, size=(2, 48, 48, 3), dtype=np.uint8)
    probabilities = np.asarray(model.predict_on_batch(pixels))
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (2, 7)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert np.array_equal(probabilities, model.predict_on_batch(pixels.astype(np.float32)))


def test_means_are_subtracted_in_full_precision() -> None:
    network = Network(width=0.1, dtype="mixed_bfloat16")
    model = googlenet(network, 3, means=(122.46, 114.26, 101.36))
    layer = model.get_layer("mean_subtraction")
    black = np.asarray(layer(np.zeros((1, 4, 4, 3), np.uint8)))
    assert np.allclose(black[0, 0, 0], (-122.46, -114.26, -101.36), atol=1e-4)


def test_order_of_norm_and_relu_is_a_choice() -> None:
    for relu_first in (False, True):
        network = Network(width=0.1, relu_before_norm=relu_first)
        stem = googlenet(network, 3, means=MEANS).get_layer("stem")
        names = [layer.name for layer in stem.layers]
        assert (names.index("conv_1_relu") < names.index("conv_1_norm")) == relu_first
        assert stem.get_layer("conv_1").use_bias == relu_first


def test_seed_fixes_the_initial_weights() -> None:
    def weights(seed: int) -> bytes:
        model = googlenet(Network(width=0.1), 3, means=MEANS, seed=seed)
        return b"".join(np.asarray(w).tobytes() for w in model.weights)

    assert weights(1) == weights(1) != weights(2)


@pytest.mark.parametrize(
    ("dtype", "relative", "absolute"), [("float32", 1e-4, 1e-4), ("mixed_bfloat16", 0.01, 0.1)]
)
def test_fused_batch_norm_trains_as_keras_does(
    dtype: str, relative: float, absolute: float
) -> None:
    tensorflow = pytest.importorskip("tensorflow")
    stream = np.random.default_rng(0)
    inputs = tensorflow.constant(stream.normal(3, 2, (16, 7, 7, 5)), "float32")
    weights = tensorflow.constant(stream.normal(size=inputs.shape), "float32")
    results = []
    for fused in (False, True):
        norm = keras.layers.BatchNormalization(momentum=0.9, dtype=dtype)
        model = keras.Sequential([keras.Input((7, 7, 5)), norm])
        if fused:
            fuse_batch_norms(model)
            assert "call" in vars(norm)
        norm.gamma.assign([0.5, 1, 2, -1, 3])
        norm.beta.assign([0, 1, -1, 2, 0])
        with tensorflow.GradientTape() as tape:
            tape.watch(inputs)
            outputs = tensorflow.cast(model(inputs, training=True), "float32")
            loss = tensorflow.reduce_sum(outputs**2 * weights)
        gradients = tape.gradient(loss, [inputs, norm.gamma.value, norm.beta.value])
        results.append([outputs, *gradients, *norm.weights])
        assert model.get_config()["layers"][1]["class_name"] == "BatchNormalization"
    for usual, ours in zip(*results, strict=True):
        np.testing.assert_allclose(ours, usual, relative, absolute)
    assert not np.allclose(results[1][-1], 1)  # the running variance did move


def test_fused_batch_norm_evaluates_by_keras_own_arithmetic() -> None:
    pixels = np.random.default_rng(0).integers(256, size=(4, 32, 32, 3), dtype=np.uint8)
    model = googlenet(Network(width=0.07), 4, means=MEANS)
    before = keras.ops.convert_to_numpy(model(pixels, training=False))
    fuse_batch_norms(model)
    assert all("call" in vars(norm) for norm in batch_norms(model))
    assert np.array_equal(keras.ops.convert_to_numpy(model(pixels, training=False)), before)
