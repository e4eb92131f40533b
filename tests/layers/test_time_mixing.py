"""Layers that mix time steps: all steps at once, one after the other, in a stream, with
every training method."""

import keras
import numpy as np
import pytest
from helpers import (
    assert_same,
    compiled,
    double_precision,
    loss_and_gradients,
    saved_and_loaded,
    spiking,
    to_numpy,
)
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import SLTT, Rate

T = 5
Y = np.array([0, 1, 2, 1])
STEP_MODES = ["multi", "single"]


@keras.saving.register_keras_serializable(package="tests")
class Echo(rsnn.layers.TimeMixing):
    """y_t = Σ_k w_k x_{t−k}: three taps for each channel, step by step."""

    def build(self, input_shape):
        start = keras.initializers.Constant([0.9, 0.6, -0.4])
        self.taps = self.add_weight(shape=(3,), initializer=start, name="taps")

    def initial_state(self, inputs):
        return [ops.zeros_like(inputs), ops.zeros_like(inputs)]

    def step(self, inputs, state):
        taps = ops.unstack(ops.cast(self.taps, inputs.dtype))
        return sum(tap * x for tap, x in zip(taps, (inputs, *state), strict=True)), [
            inputs,
            state[0],
        ]


@keras.saving.register_keras_serializable(package="tests")
class EchoAtOnce(Echo):
    """The same, of all steps at once as well."""

    def over_time(self, inputs):
        taps = ops.unstack(ops.cast(self.taps, inputs.dtype))
        pads = [[0, 0] for _ in inputs.shape[2:]]
        shifted = [
            ops.pad(inputs, [[0, 0], [k, 0], *pads])[:, : inputs.shape[1]]
            for k in range(3)
        ]
        return sum(tap * x for tap, x in zip(taps, shifted, strict=True))


@keras.saving.register_keras_serializable(package="tests")
class Backwards(rsnn.layers.TimeMixing):
    """The steps in reverse order: the first output needs the last input."""

    def over_time(self, inputs):
        return ops.flip(inputs, axis=1)


def network(make=Echo):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), dtype=keras.config.dtype_policy().compute_dtype)
    x = make(name="currents")(layers.Dense(8, use_bias=False)(inputs))
    x = make(name="spikes")(rsnn.layers.LIF(0.5, 0.5)(layers.BatchNormalization()(x)))
    x = rsnn.layers.LIF(0.5, 0.3, reset="hard")(layers.Dense(8)(x))
    return keras.Model(inputs, layers.Dense(3)(x))


def frames():
    return (
        np.random.default_rng(0)
        .normal(0.8, 1.0, (4, T, 6))
        .astype(keras.config.floatx())
    )


def results(make, gradient, step_mode, x=None):
    model = spiking(network(make), T, gradient, step_mode=step_mode)
    value, gradients = loss_and_gradients(model, frames() if x is None else x, Y)
    return [value, *gradients.values()]


def test_a_layer_is_its_formula():
    inputs = keras.Input((1,))
    currents = Echo()(inputs)
    model = spiking(
        keras.Model(inputs, [currents, rsnn.layers.LIF()(currents)]),
        4,
        return_sequences=True,
    )
    outputs, _ = model(np.array([[[1.0], [2.0], [3.0], [4.0]]], "float32"))
    np.testing.assert_allclose(
        to_numpy(outputs)[0, :, 0], [0.9, 2.4, 3.5, 4.6], rtol=1e-6
    )


@pytest.mark.parametrize(
    "gradient",
    ["rate", Rate(windows=2), "bptt", "sltt", SLTT(recompute=False), "ottt"],
    ids=str,
)
def test_step_by_step_is_all_at_once(gradient):
    """Without the statistics of a batch, which differ between the step modes."""

    def frozen(make, step_mode):
        model = spiking(network(make), T, gradient, step_mode=step_mode)
        model.network.layers[3].trainable = False
        value, gradients = loss_and_gradients(model, frames(), Y)
        return [value, *gradients.values()]

    expected = frozen(Echo, "single")
    for make, step_mode in ((Echo, "multi"), (EchoAtOnce, "multi")):
        assert_same(frozen(make, step_mode), expected)


@pytest.mark.parametrize("step_mode", STEP_MODES)
def test_with_a_window_for_each_step_the_rate_gradient_is_that_of_bptt(step_mode):
    with double_precision():
        # On PyTorch, Keras computes Dense layers in float32.
        assert_same(
            results(EchoAtOnce, Rate(windows=T), step_mode),
            results(EchoAtOnce, "bptt", step_mode),
            rtol=1e-5,
        )


def test_one_window_sees_what_the_layer_does_to_constant_inputs():
    """∂ȳ/∂x̄ = Σ_k w_k (T − k) / T: what enters before the first step is zero."""
    inputs = keras.Input((1,))
    scale = layers.Dense(1, use_bias=False)
    x = Echo()(rsnn.layers.LIF(0.5)(inputs))
    model = spiking(keras.Model(inputs, scale(x)), T, "rate")
    scale.set_weights([np.ones((1, 1))])
    _, gradients = loss_and_gradients(
        model, np.ones((1, T, 1)), Y[:1], lambda y, outputs: ops.sum(outputs)
    )
    of_taps = next(gradient for path, gradient in gradients.items() if "taps" in path)
    rate = to_numpy(
        spiking(keras.Model(inputs, rsnn.layers.LIF(0.5)(inputs)), T)(
            np.ones((1, T, 1))
        )
    )[0, 0]
    np.testing.assert_allclose(
        of_taps, [rate * (T - k) / T for k in range(3)], rtol=1e-5
    )


def test_online_methods_carry_no_gradient_between_steps():
    """The derivative of an output with respect to its own step's input alone: the first
    tap."""
    inputs = keras.Input((1,))
    model = spiking(
        keras.Model(
            inputs, rsnn.layers.LIF()(Echo()(layers.Dense(1, use_bias=False)(inputs)))
        ),
        T,
        "sltt",
    )
    for step_mode in STEP_MODES:
        model.step_mode = step_mode
        x = np.random.default_rng(0).random((1, T, 1)).astype("float32")
        _, gradients = loss_and_gradients(
            model, x, Y[:1], lambda y, outputs: ops.sum(outputs)
        )
        of_kernel, of_taps = gradients.values()
        assert np.abs(of_kernel).max() > 0
        if step_mode == "multi":
            expected = [of_kernel, of_taps]
    assert_same([of_kernel, of_taps], expected)


def test_a_stream_is_the_whole_sequence():
    model = spiking(network(), T, return_sequences=True)
    x = frames()
    by_step = np.stack([to_numpy(model.step(x[:, t])) for t in range(T)], axis=1)
    np.testing.assert_allclose(by_step, to_numpy(model(x)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("gradient", "step_mode"),
    [("rate", "multi"), ("rate", "single"), ("bptt", "multi"), ("sltt", "single")],
)
def test_padding_is_a_step_of_zeros(gradient, step_mode):
    lengths = np.array([5, 2, 2, 5])
    x, mask = frames(), np.arange(T) < lengths[:, None]
    x[~mask] = np.nan
    model = spiking(
        network(EchoAtOnce), T, gradient, step_mode=step_mode, mask_value=np.nan
    )
    model.network.layers[3].trainable = False
    outputs = model.predict_on_batch(x)
    for length in (2, 5):
        alone = rsnn.SpikingModel(
            model.network, length, gradient, step_mode
        ).predict_on_batch(x[lengths == length, :length])
        np.testing.assert_allclose(
            outputs[lengths == length], alone, rtol=1e-5, atol=1e-6
        )
    _, gradients = loss_and_gradients(model, x, Y)
    assert all(np.isfinite(of_it).all() for of_it in gradients.values())


@pytest.mark.parametrize(
    ("policy", "step_mode"),
    [("mixed_bfloat16", "multi"), ("mixed_bfloat16", "single"), ("float32", "multi")],
)
def test_training_works_compiled_and_in_half_precision(policy, step_mode):
    keras.config.set_dtype_policy(policy)
    x, model = (
        frames().astype("float32"),
        compiled(
            spiking(network(EchoAtOnce), T, step_mode=step_mode), jit_compile=True
        ),
    )
    losses = model.fit(x, Y, batch_size=2, epochs=3, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert model.network.get_layer("spikes").taps.dtype == "float32"
    again = saved_and_loaded(model)
    np.testing.assert_allclose(
        to_numpy(again(x)), to_numpy(model(x)), rtol=1e-2, atol=1e-2
    )


def test_a_layer_that_looks_ahead_needs_all_steps_at_once():
    inputs = keras.Input((2,))
    model = spiking(
        keras.Model(inputs, rsnn.layers.LIF()(Backwards()(inputs))),
        T,
        return_sequences=True,
    )
    x = np.random.default_rng(0).random((1, T, 2)).astype("float32")
    plain = spiking(
        keras.Model(inputs, rsnn.layers.LIF()(inputs)), T, return_sequences=True
    )
    np.testing.assert_array_equal(
        to_numpy(model(x)), to_numpy(plain(x[:, ::-1].copy()))
    )
    for run in (
        lambda: model.step(x[:, 0]),
        lambda: spiking(model.network, T, step_mode="single")(x),
    ):
        with pytest.raises(
            NotImplementedError,
            match=r'needs all time steps at once.*step_mode="multi"',
        ):
            run()


def test_a_layer_inside_another_layer_is_an_error():
    class Outer(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = Echo()

        def call(self, inputs):
            return self.inner(inputs)

    inputs = keras.Input((6,))
    with pytest.raises(ValueError, match="must not hide"):
        spiking(keras.Model(inputs, rsnn.layers.LIF()(Outer()(inputs))), T)
