"""Half and double precision, in every step mode."""

import keras
import numpy as np
import pytest
from helpers import (
    assert_close,
    chain,
    compiled,
    data,
    double_precision,
    loss_and_gradients,
    spiking,
    to_numpy,
    training_results,
)
from keras import layers

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import Rate

BACKEND = keras.backend.backend()


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
    [("rate", "multi"), (Rate(windows=2), "single")][: 1 if BACKEND == "jax" else None],
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
            network = chain(
                layers.Dense(8),
                rsnn.layers.MaskedPSN(4, 2, threshold=0.3),
                rsnn.layers.Delay(3),
                layers.Dense(8),
                rsnn.layers.TemporalEffectiveBatchNormalization(4),
                rsnn.layers.LIF(threshold=0.3, activity_regularizer="l2"),
                layers.Dense(3, activity_regularizer="l2"),
            )
            options = {"step_mode": step_mode, "mask_value": np.nan}
            model = spiking(network, 4, gradient, **options)
            _, gradients, outputs = training_results(model, x.astype("float64"), y)
        finally:
            keras.config.set_floatx("float32")
    for result in (*gradients.values(), outputs):
        assert result.dtype == "float64"
        assert np.isfinite(result).all()
    assert all(gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize(
    ("gradient", "step_mode"), MODES[: 1 if BACKEND == "jax" else None]
)
def test_neurons_on_inputs_in_single_precision_are_in_double_where_their_layer_is(
    gradient, step_mode
):
    x, y = data(4, (3, 6))

    def results(dtype):
        keras.utils.set_random_seed(0)
        inputs, frames = keras.Input((6,), dtype=dtype), x.astype(dtype)
        learning = rsnn.layers.LIF(learn_threshold=True)(inputs)
        filtering = rsnn.layers.SlidingPSN(2, threshold=0.3)(inputs)
        decaying = rsnn.layers.ParametricLIF()(inputs)
        spikes = layers.Concatenate()([learning, filtering, decaying])
        network = keras.Model(inputs, layers.Dense(3)(spikes))
        model = spiking(network, 3, gradient, step_mode=step_mode)
        _, gradients, outputs = training_results(model, frames, y)
        return [*gradients.values(), outputs, to_numpy(model.step(frames[:, 0]))]

    with double_precision():
        single, double = map(results, ("float32", "float64"))
    assert {str(array.dtype) for array in single} == {"float64"}
    assert_close(single, double, rtol=1e-12)


def test_a_mask_in_single_precision_after_half_is_in_single():
    keras.config.set_dtype_policy("mixed_float16")
    inputs = keras.Input((6,))
    spikes = rsnn.layers.LIF()(layers.Dense(8)(inputs))
    masked = layers.Dropout(0.5, seed=1, dtype="float32")(spikes)
    model = spiking(keras.Model(inputs, [masked, spikes]), 4)
    outputs, rates = to_numpy(model(data()[0], training=True))
    assert outputs.dtype == "float32"
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
    network = chain(frozen, rsnn.layers.LIF(), layers.Dense(3))
    before = to_numpy(frozen.kernel)
    spiking(network, 6, step_mode="single").predict(data(8)[0], verbose=0)
    np.testing.assert_array_equal(to_numpy(frozen.kernel), before)


def test_steps_are_recomputed_with_weights_in_single_precision():
    """So that the sums of gradients over steps have digits beyond half precision."""
    keras.config.set_dtype_policy("mixed_float16")
    model = spiking(timesteps=3, gradient="sltt", step_mode="single")
    _, gradients = loss_and_gradients(model, *data(4, (3, 6)))
    kernel = next(iter(gradients.values()))
    assert np.mean(kernel.astype("float16") == kernel) < 0.8
