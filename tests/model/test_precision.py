"""Half and double precision, and channels first, in every step mode."""

import keras
import numpy as np
import pytest
from helpers import (
    assert_close,
    compiled,
    data,
    double_precision,
    loss_and_gradients,
    spiking,
    to_numpy,
    training_results,
)
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import Rate

BACKEND = keras.backend.backend()


def image_network(axis=-1):
    inputs = keras.Input((4, 4, 2) if axis == -1 else (2, 4, 4))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    x = rsnn.layers.LIF()(layers.BatchNormalization(axis=axis)(x))
    x = layers.Conv2D(8, 2, use_bias=False)(layers.MaxPooling2D(2)(x))
    x = rsnn.layers.ParametricLIF(per_channel=True, axis=axis)(x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


MODES = [("rate", "multi"), ("bptt", "single")]


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_rates_whose_gradients_overflow_change_no_weight_but_the_scale(step_mode):
    keras.config.set_dtype_policy("mixed_float16")
    sgd = keras.optimizers.SGD(0.1)
    optimizer = keras.optimizers.LossScaleOptimizer(sgd, initial_scale=2.0**24)
    model = compiled(spiking(gradient="rate", step_mode=step_mode), optimizer)
    x, y = data()
    before = model.get_weights()
    model.train_on_batch(x, y)
    assert float(to_numpy(optimizer.dynamic_scale.value)) == 2.0**23
    assert_close(model.get_weights(), before, rtol=0)
    for _ in range(12):
        model.train_on_batch(x, y)
    assert 2.0**11 < float(to_numpy(optimizer.dynamic_scale.value)) < 2.0**23
    for weight, start in zip(model.get_weights(), before, strict=True):
        assert np.isfinite(weight).all()
        assert not np.array_equal(weight, start)


@pytest.mark.parametrize(("gradient", "step_mode"), MODES)
def test_spikes_are_exact_and_membranes_are_wide_in_half_precision(gradient, step_mode):
    keras.config.set_dtype_policy("mixed_float16")
    inputs = keras.Input((6,))
    network = keras.Model(inputs, rsnn.layers.IF()(inputs))
    model = spiking(network, 6, gradient, step_mode=step_mode, return_sequences=True)
    # 1 + 1/2048 is not a float16: an integrator in half precision would never pass 1.
    currents = np.zeros((1, 6, 6), "float32")
    currents[:, 0], currents[:, 1] = 1.0 - 2.0**-11, 2.0**-11
    spikes = to_numpy(model(currents, training=gradient == "bptt"))
    assert str(spikes.dtype) == "float16"
    np.testing.assert_array_equal(spikes[0, :, 0], [0, 1, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("gradient", "step_mode"),
    # JAX compiles for long what only TensorFlow could not do.
    [("rate", "multi"), (Rate(windows=2), "single"), ("bptt", "multi")][
        : 1 if BACKEND == "jax" else None
    ],
    ids=str,
)
def test_padded_sequences_and_losses_of_layers_are_in_the_default_double_precision(
    gradient, step_mode
):
    """Integers then have 64 bits on TensorFlow, which neither compares nor multiplies
    tensors of two dtypes."""
    x, y = data(4, (4, 6))
    x[np.arange(4) >= np.array([4, 3, 1, 4])[:, None]] = np.nan
    with double_precision():
        keras.config.set_floatx("float64")
        try:
            inputs = keras.Input((6,))
            spikes = rsnn.layers.MaskedPSN(4, 2, threshold=0.3)(layers.Dense(8)(inputs))
            norm = rsnn.layers.TemporalEffectiveBatchNormalization(4)
            currents = norm(layers.Dense(8)(rsnn.layers.Delay(3)(spikes)))
            lif = rsnn.layers.LIF(threshold=0.3, activity_regularizer="l2")
            last = layers.Dense(3, activity_regularizer="l2")(lif(currents))
            options = {"step_mode": step_mode, "mask_value": np.nan}
            model = spiking(keras.Model(inputs, last), 4, gradient, **options)
            _, gradients, outputs = training_results(model, x.astype("float64"), y)
        finally:
            keras.config.set_floatx("float32")
    for result in (*gradients.values(), outputs):
        assert result.dtype == "float64"
        assert np.isfinite(result).all()
    assert all(gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize(
    ("gradient", "step_mode"),
    [*MODES, ("ottt", "multi")][: 1 if BACKEND == "jax" else None],
)
def test_neurons_on_inputs_in_single_precision_are_in_double_where_their_layer_is(
    gradient, step_mode
):
    x, y = data(4, (3, 6))

    def results(dtype):
        keras.utils.set_random_seed(0)
        inputs, frames = keras.Input((6,), dtype=dtype), x.astype(dtype)
        neurons = [rsnn.layers.ParametricLIF(), rsnn.layers.LIF(learn_threshold=True)]
        if gradient != "ottt":
            neurons.append(rsnn.layers.SlidingPSN(2, threshold=0.3))
        spikes = layers.Concatenate()([layer(inputs) for layer in neurons])
        network = keras.Model(inputs, layers.Dense(3)(spikes))
        model = spiking(network, 3, gradient, step_mode=step_mode)
        _, gradients, outputs = training_results(model, frames, y)
        return [*gradients.values(), outputs, to_numpy(model.step(frames[:, 0]))]

    with double_precision():
        single, double = map(results, ("float32", "float64"))
    assert {str(array.dtype) for array in single} == {"float64"}
    assert_close(single, double, rtol=1e-12)


@pytest.mark.skipif(
    BACKEND == "tensorflow",
    reason="TensorFlow's CPU has no convolution with channels first",
)
@pytest.mark.parametrize(("gradient", "step_mode"), MODES)
def test_channels_first_is_channels_last(gradient, step_mode):
    x, y = data(8, (4, 4, 2))
    # Two steps could be taken for the axis of the channels.
    last = spiking(image_network(), 3, gradient, step_mode=step_mode)
    weights = last.get_weights()
    _, expected, outputs = training_results(last, x, y)
    keras.config.set_image_data_format("channels_first")
    first = spiking(image_network(axis=1), 3, gradient, step_mode=step_mode)
    for there, here in zip(first.weights, weights, strict=True):
        there.assign(np.reshape(here, there.shape))
    _, gradients, found = training_results(first, np.moveaxis(x, -1, 1), y)
    np.testing.assert_allclose(found, outputs, rtol=1e-5, atol=1e-6)
    for here, there in zip(gradients.values(), expected.values(), strict=True):
        np.testing.assert_allclose(here.ravel(), there.ravel(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("gradient", "step_mode"), MODES)
def test_a_mask_in_single_precision_after_half_is_in_single(gradient, step_mode):
    keras.config.set_dtype_policy("mixed_float16")
    inputs = keras.Input((6,))
    spikes = rsnn.layers.LIF()(layers.Dense(8)(inputs))
    masked = layers.Dropout(0.5, seed=1, dtype="float32")(spikes)
    network = keras.Model(inputs, [masked, spikes])
    model = spiking(network, 4, gradient, step_mode=step_mode)
    outputs, rates = model(data()[0], training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    outputs, rates = to_numpy((outputs, ops.cast(rates, "float32")))
    is_left = outputs != 0
    assert 0 < is_left.sum() < (rates != 0).sum()
    np.testing.assert_allclose(outputs[is_left], 2.0 * rates[is_left], rtol=1e-3)


def test_the_network_sees_its_inputs_as_they_are():
    """The first layer says in which precision it takes them, as in the network without
    time."""
    keras.config.set_dtype_policy("mixed_float16")
    inputs, words = keras.Input((3,)), keras.Input((2,), dtype="int32")
    shift = layers.Rescaling(1.0, offset=-70_000.0, dtype="float32")
    exact = rsnn.layers.IF(dtype="float32")(shift(inputs))
    ones = layers.Embedding(2100, 1, embeddings_initializer="ones", dtype="float32")
    model = rsnn.SpikingModel(keras.Model([inputs, words], [exact, ones(words)]), 1)
    numbers = np.array([[70_001.5, 70_000.5, 70_003.0]], "float32")
    x = [numbers, np.array([[1999.0, 2051.0]])]
    for outputs in (model(x), model.predict(x, verbose=0), model.step(x)):
        spikes, ones_of_words = to_numpy(outputs)
        assert spikes.tolist() == [[1.0, 0.0, 1.0]]
        assert ones_of_words.tolist() == [[[1.0], [1.0]]]


def test_a_model_made_from_another_has_its_policy_and_not_the_global_one():
    """Without it mixed_float16 would train without loss scaling."""
    keras.config.set_dtype_policy("mixed_float16")
    hidden = layers.Dense(8, "relu")
    plain = keras.Sequential([keras.Input((6,)), hidden, layers.Dense(3)])
    model = spiking()
    keras.config.set_dtype_policy("float32")
    made = [
        rsnn.spikify(plain, 2, verbose=False),
        rsnn.models.add_branches(model, [model.network.layers[-2].name]),
        rsnn.models.load_pretrained("digits", dtype="mixed_float16"),
    ]
    for model in made:
        assert compiled(model).dtype_policy.name == "mixed_float16"
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    keras.config.set_dtype_policy("mixed_bfloat16")
    single = rsnn.models.load_pretrained("digits", dtype="float32")
    assert single.dtype_policy.name == "float32"


def test_single_step_mode_leaves_frozen_weights_in_single_precision():
    keras.config.set_dtype_policy("mixed_float16")
    frozen = layers.Dense(8, trainable=False)
    parts = [keras.Input((6,)), frozen, rsnn.layers.LIF(), layers.Dense(3)]
    model = spiking(keras.Sequential(parts), 6, step_mode="single")
    before = to_numpy(frozen.kernel.value)
    model.predict(data(8)[0], verbose=0)
    np.testing.assert_array_equal(to_numpy(frozen.kernel.value), before)


def test_steps_are_recomputed_with_weights_in_single_precision(monkeypatch):
    dtypes = {}

    def with_backward(values, inputs, others, backward):
        dtypes.update(
            (tuple(tensor.shape), keras.backend.standardize_dtype(tensor.dtype))
            for tensor in inputs
        )
        return original(values, inputs, others, backward)

    original = rsnn._core.backend.with_backward
    monkeypatch.setattr("keras_ratesnn._core.backend.with_backward", with_backward)
    keras.config.set_dtype_policy("mixed_float16")
    inputs = keras.Input((6,), dtype="float32")
    network = keras.Model(
        inputs, layers.Dense(3)(rsnn.layers.LIF()(layers.Dense(8)(inputs)))
    )
    loss_and_gradients(spiking(network, 3, "sltt", step_mode="single"), *data(4))
    assert {dtypes[tuple(weight.shape)] for weight in network.weights} == {"float32"}
