"""Training on TensorFlow compiled by XLA, which Keras chooses on GPUs, is that without
it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_close, both_step_modes, compiled, data, spiking
from keras import layers, ops
from reference_networks import Case

import keras_ratesnn as rsnn
from keras_ratesnn._core.backend import xla_loops

T = 5
"""More steps than are unrolled, with or without gradient."""


@pytest.fixture
def double_precision():
    """Everything in float64, losses too."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")


def drawn_number():
    return tf.random.stateless_uniform((), (1, 2))


DRAWN_WITHOUT_XLA = float(drawn_number())


class OnlyInXla(layers.Layer):
    """Returns its inputs if XLA runs it, and NaN otherwise."""

    def call(self, inputs):
        return inputs + ops.where(
            drawn_number() == DRAWN_WITHOUT_XLA, ops.cast(np.nan, inputs.dtype), 0.0
        )


def small(xla=False):
    """Two layers of neurons, the normalisation between them, and regularisers."""
    inputs = keras.Input((6,))
    x = layers.Dense(8, kernel_regularizer="l2", activity_regularizer="l2")(inputs)
    x = rsnn.layers.LIF(threshold=0.3)(x)
    x = layers.BatchNormalization()(layers.Dense(8)(x))
    x = rsnn.layers.LIF(threshold=0.3, learn_threshold=True)(x)
    x = layers.Dense(3, dtype=keras.config.floatx())(x)
    return keras.Model(inputs, OnlyInXla(dtype=x.dtype)(x) if xla else x)


def pair(step_mode="multi"):
    """Two equal models: one runs without XLA, and the other can run only under it."""
    models = []
    for with_xla in (False, True):
        keras.utils.set_random_seed(0)
        model = spiking(small(with_xla), T, step_mode=step_mode)
        models.append(compiled(model, jit_compile=with_xla))
    models[1].set_weights(models[0].get_weights())
    return models


def assert_train_alike(models, batches):
    """In each step the losses and all variables are the same."""
    plain, with_xla = models
    for x, y in batches:
        expected = pytest.approx(plain.train_on_batch(x, y), rel=1e-9)
        assert with_xla.train_on_batch(x, y) == expected
        assert_close(with_xla.variables, plain.variables, rtol=1e-9, atol=1e-9)


def batches(*sizes):
    return [data(size, seed=seed) for seed, size in enumerate(sizes)]


@pytest.mark.usefixtures("double_precision")
@both_step_modes
def test_training_is_that_without_xla_step_by_step(step_mode):
    """In multi-step mode the last batch is smaller: from then on TensorFlow traces a
    function for batches of any size. Each layer is in the contract."""
    sizes = (4, 3) if step_mode == "multi" else (4, 4)
    assert_train_alike(pair(step_mode), batches(*sizes))


@pytest.mark.usefixtures("double_precision")
def test_the_unrolled_loops_of_gpus_train_as_without_xla(monkeypatch):
    monkeypatch.setitem(
        xla_loops.UNROLLED_STEPS, "cpu", xla_loops.UNROLLED_STEPS["gpu"]
    )
    assert_train_alike(pair(), batches(4, 4))


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


def test_mixed_precision_trains_as_without_xla_but_for_rounding():
    keras.config.set_dtype_policy("mixed_float16")
    models = pair()
    before = models[0].get_weights()
    for x, y in batches(256, 256):
        # Rounding flips spikes, others on each processor: among many it averages out.
        plain, with_xla = (model.train_on_batch(x, y) for model in models)
        assert with_xla == pytest.approx(plain, rel=0.02)
    changes = []
    for model in models:
        pairs = zip(model.get_weights(), before, strict=True)
        changes.append(np.concatenate([np.ravel(new - old) for new, old in pairs]))
    expected, found = changes
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


def test_a_reference_case_agrees():
    Case("res_rate_s").assert_training_agrees(jit_compile=True)
