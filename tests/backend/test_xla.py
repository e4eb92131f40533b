"""Training on TensorFlow compiled by XLA, which Keras chooses on GPUs, is that without
it."""

import keras
import numpy as np
import pytest
from helpers import BACKEND, assert_close, compiled, data, spiking
from keras import layers, ops
from reference_networks import CASES, Case

import keras_ratesnn as rsnn

if BACKEND != "tensorflow":
    pytest.skip("XLA is a choice on TensorFlow alone", allow_module_level=True)

import tensorflow as tf

from keras_ratesnn._core.backend import xla_loops

T = 5
"""More steps than are unrolled, with or without gradient."""

SHAPE = (4, 4, 2)


@pytest.fixture
def double_precision():
    """Everything in float64, losses too."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")


@pytest.fixture(autouse=True)
def _noise_of_both(monkeypatch):
    """Dropout and Gaussian noise whose numbers depend on the seed alone: XLA draws
    others than TensorFlow."""

    def drawn(shape, seed, dtype):
        phases = tf.reshape(tf.range(tf.reduce_prod(shape)), shape)
        return tf.sin(
            tf.cast(tf.reduce_sum(seed) % 97, dtype) + tf.cast(phases, dtype) ** 2
        )

    def dropout(inputs, rate, noise_shape=None, seed=None, name=None):
        kept = drawn(tf.shape(inputs), seed, inputs.dtype) > rate
        return tf.where(kept, inputs / (1.0 - rate), 0.0)

    def normal(shape, seed, mean=0.0, stddev=1.0, dtype=tf.float32):
        return mean + stddev * drawn(shape, seed, dtype)

    monkeypatch.setattr(tf.nn.experimental, "stateless_dropout", dropout)
    monkeypatch.setattr(tf.random, "stateless_normal", normal)


def drawn_number():
    return tf.random.stateless_uniform((), (1, 2))


DRAWN_WITHOUT_XLA = float(drawn_number())


class OnlyInXla(layers.Layer):
    """Returns its inputs if XLA runs it, and NaN otherwise."""

    def call(self, inputs):
        return inputs + ops.where(
            drawn_number() == DRAWN_WITHOUT_XLA, ops.cast(np.nan, inputs.dtype), 0.0
        )


def network(xla=False):
    """A convolution, normalisation, a residual sum, noise, regularisation, learned
    neurons: what a step may meet."""
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(
        3,
        3,
        padding="same",
        kernel_regularizer="l2",
        activity_regularizer=keras.regularizers.L2(1e-3),
    )(inputs)
    x = first = rsnn.layers.LIF()(layers.BatchNormalization()(x))
    x = rsnn.layers.LIF()(layers.BatchNormalization()(layers.Dense(3)(x)))
    x = layers.Flatten()(layers.AveragePooling2D(2)(layers.Add()([x, first])))
    x = layers.GaussianNoise(0.1, seed=4)(layers.Dropout(0.3, seed=3)(x))
    x = rsnn.layers.LIF(learn_threshold=True)(layers.Dense(5)(x))
    x = layers.Dense(3)(x)
    return keras.Model(inputs, OnlyInXla()(x) if xla else x)


def small(xla=False):
    """Two layers of neurons, and the normalisation between them."""
    inputs = keras.Input((6,))
    x = rsnn.layers.LIF(threshold=0.3)(layers.Dense(8, name="first")(inputs))
    x = rsnn.layers.LIF(threshold=0.3)(
        layers.BatchNormalization(name="normal")(layers.Dense(8)(x))
    )
    x = layers.Dense(
        3, dtype="float32" if keras.config.floatx() == "float32" else None
    )(x)
    return keras.Model(inputs, OnlyInXla(dtype=x.dtype)(x) if xla else x)


def pair(
    gradient="rate",
    step_mode="multi",
    timesteps=T,
    make=small,
    optimizer=None,
    **options,
):
    """Two equal models: one runs without XLA, and the other can run only under it."""
    models = []
    for with_xla in (False, True):
        keras.utils.set_random_seed(0)
        model = spiking(make(xla=with_xla), timesteps, gradient, step_mode=step_mode)
        models.append(
            compiled(model, optimizer and optimizer(), jit_compile=with_xla, **options)
        )
    models[1].set_weights(models[0].get_weights())
    return models


def assert_same_state(models, tolerance=1e-9):
    plain, with_xla = models
    assert_close(with_xla.variables, plain.variables, rtol=tolerance, atol=tolerance)


def assert_train_alike(models, batches, tolerance=1e-9):
    """In each step the losses and all variables are the same."""
    for x, y in batches:
        plain, with_xla = (model.train_on_batch(x, y) for model in models)
        assert with_xla == pytest.approx(plain, rel=tolerance)
        assert_same_state(models, tolerance)


def batches(*sizes, shape=(6,)):
    return [data(size, shape, seed=seed) for seed, size in enumerate(sizes)]


def test_what_only_xla_runs_is_nan_without_it():
    models = [
        compiled(spiking(small(xla=True), T), jit_compile=jit_compile)
        for jit_compile in (False, True)
    ]
    without, with_xla = (model.train_on_batch(*data(2)) for model in models)
    assert np.isnan(without)
    assert np.isfinite(with_xla)


def methods(*often):
    """All methods in both step modes; those that are not listed are slow."""
    return [
        pytest.param(
            gradient,
            step_mode,
            marks=() if (gradient, step_mode) in often else pytest.mark.slow,
        )
        for gradient in (
            "rate",
            rsnn.gradients.Rate(windows=2),
            "bptt",
            "sltt",
            rsnn.gradients.SLTT(random_steps=T),
            "ottt",
        )
        for step_mode in ("multi", "single")
    ]


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(
    ("gradient", "step_mode"), methods(("rate", "multi"), ("rate", "single")), ids=str
)
def test_training_is_that_without_xla_step_by_step(gradient, step_mode):
    """In multi-step mode the last batch is smaller: from then on TensorFlow traces a
    function for batches of any size."""
    assert_train_alike(
        pair(gradient, step_mode, make=network),
        batches(4, 3 if step_mode == "multi" else 4, shape=SHAPE),
    )


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(
    "step_mode", ["multi", pytest.param("single", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "gradient", ["rate", pytest.param("bptt", marks=pytest.mark.slow)]
)
def test_the_unrolled_loops_of_gpus_train_as_without_xla(
    gradient, step_mode, monkeypatch
):
    monkeypatch.setitem(
        xla_loops.UNROLLED_STEPS, "cpu", xla_loops.UNROLLED_STEPS["gpu"]
    )
    assert_train_alike(pair(gradient, step_mode), batches(4, 4))


def traced(model, x):
    """What TensorFlow hands to XLA of a training pass."""

    @tf.function(jit_compile=True)
    def gradients(x):
        with tf.GradientTape() as tape:
            outputs = ops.sum(model(x, training=True))
        return tape.gradient(
            outputs, [variable.value for variable in model.trainable_variables]
        )

    return gradients.experimental_get_compiler_ir(ops.convert_to_tensor(x))(stage="hlo")


@pytest.mark.parametrize(
    ("gradient", "timesteps", "loops"), [("rate", 2, 2), ("bptt", 4, 0), ("bptt", T, 4)]
)
def test_the_time_loops_of_neurons_are_loops_of_xla(gradient, timesteps, loops):
    """One for each neuron layer, and another one if it has a backward pass."""
    text = traced(spiking(small(), timesteps, gradient), np.ones((2, 6), "float32"))
    assert text.count(" while(") == loops


def test_time_means_are_computed_before_the_backward_pass():
    text = traced(spiking(small(), T), np.ones((2, 6), "float32"))
    assert "opt-barrier" in text


@pytest.mark.usefixtures("double_precision")
def test_evaluate_and_predict_are_those_without_xla():
    x, y = data(8)
    models = pair()
    assert_train_alike(models, batches(4))
    losses = [model.evaluate(x, y, batch_size=4, verbose=0) for model in models]
    outputs = [model.predict(x, batch_size=4, verbose=0) for model in models]
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-9)


def frozen(xla=False):
    model = small(xla=xla)
    for name in ("first", "normal"):
        model.get_layer(name).trainable = False
    return model


@pytest.mark.usefixtures("double_precision")
def test_frozen_layers_train_as_without_xla():
    models = pair(make=frozen)
    assert (
        len(models[1].trainable_variables)
        == len(spiking(small()).trainable_variables) - 4
    )
    assert_train_alike(models, batches(4, 4))


def masked(xla=False):
    inputs = keras.Input((3, 4))
    x = layers.Dense(4)(layers.Masking()(inputs))
    x = rsnn.layers.LIF()(layers.BatchNormalization()(x))
    x = layers.Dense(3)(layers.GlobalAveragePooling1D()(x))
    return keras.Model(inputs, OnlyInXla()(x) if xla else x)


@pytest.mark.usefixtures("double_precision")
def test_masks_count_as_without_xla():
    x, y = data(4, (T, 3, 4))
    x[np.random.default_rng(1).random(x.shape[:3]) < 0.3] = 0.0
    models = pair(make=masked)
    assert_train_alike(models, [(x, y)] * 2)


@pytest.mark.usefixtures("double_precision")
def test_accumulated_gradients_are_those_without_xla():
    models = pair(
        optimizer=lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2)
    )
    assert_train_alike(models, batches(4, 4))


@pytest.mark.usefixtures("double_precision")
def test_several_steps_per_execution_are_those_without_xla():
    x, y = data(14)
    models = pair(steps_per_execution=2, timesteps=2)
    losses = [
        model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0).history[
            "loss"
        ]
        for model in models
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)
    assert_same_state(models)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_as_without_xla_but_for_rounding(policy):
    keras.config.set_dtype_policy(policy)

    models = pair()
    before = models[0].get_weights()
    for x, y in batches(256, 256):
        # Rounding flips spikes, others on each processor: among many it averages out.
        plain, with_xla = (model.train_on_batch(x, y) for model in models)
        assert with_xla == pytest.approx(plain, rel=0.02)
    expected, found = (
        np.concatenate(
            [
                (new - old).ravel()
                for new, old in zip(model.get_weights(), before, strict=True)
            ]
        )
        for model in models
    )
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


@pytest.mark.usefixtures("double_precision")
def test_training_goes_on_from_a_file_as_without_xla(tmp_path):
    plain, with_xla = pair(optimizer=lambda: keras.optimizers.SGD(0.1, momentum=0.9))
    first, second = batches(4, 4)
    assert_train_alike((plain, with_xla), [first])
    with_xla.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(
        tmp_path / "model.keras", custom_objects={"OnlyInXla": OnlyInXla}
    )
    assert loaded.jit_compile is True
    assert_train_alike((plain, loaded), [second])


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(
    "gradient", ["rate", pytest.param("bptt", marks=pytest.mark.slow)]
)
def test_a_training_loop_of_ones_own_is_that_without_xla(gradient):
    models = pair(gradient)

    def step_of(model, jit_compile):
        optimizer = keras.optimizers.SGD(0.1)
        optimizer.build(model.trainable_variables)

        @tf.function(jit_compile=jit_compile)
        def step(x, y):
            with tf.GradientTape() as tape:
                value = model.loss(y, model(x, training=True)) + sum(model.losses)
            gradients = tape.gradient(
                value, [variable.value for variable in model.trainable_variables]
            )
            optimizer.apply(gradients, model.trainable_variables)
            return value

        return step

    steps = [
        step_of(model, jit_compile)
        for model, jit_compile in zip(models, (False, True), strict=True)
    ]
    for x, y in batches(4, 4):
        plain, with_xla = (
            float(step(ops.convert_to_tensor(x, "float64"), ops.convert_to_tensor(y)))
            for step in steps
        )
        assert with_xla == pytest.approx(plain, rel=1e-9)
        assert_same_state(models)


often_cases = ("mlp_rate_m", "res_rate_s")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in often_cases else pytest.mark.slow)
        for name in CASES
    ],
)
def test_reference_cases_agree(name):
    Case(name).assert_training_agrees(jit_compile=True)
