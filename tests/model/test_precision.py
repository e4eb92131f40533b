"""Half and double precision, and channels first, in every step mode."""

import keras
import numpy as np
import pytest
from helpers import (
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
from keras_ratesnn.gradients import SLTT, Rate

BACKEND = keras.backend.backend()
MODES = [("rate", "multi"), ("rate", "single"), ("bptt", "multi"), ("bptt", "single")]


class AddsLoss(layers.Layer):
    def call(self, inputs):
        self.add_loss(0.1 * ops.mean(ops.square(inputs)))
        return inputs


def convolutional(axis=-1):
    inputs = keras.Input((8, 8, 2) if axis == -1 else (2, 8, 8))
    x = layers.BatchNormalization(axis=axis)(
        layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    )
    x = layers.MaxPooling2D(2)(rsnn.layers.LIF()(x))
    x = layers.BatchNormalization(axis=axis)(
        layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
    )
    x = rsnn.layers.ParametricLIF(per_channel=True, axis=axis)(x)
    return keras.Model(
        inputs, layers.Dense(3, dtype="float32")(layers.GlobalAveragePooling2D()(x))
    )


@pytest.mark.parametrize(
    ("gradient", "step_mode", "policy"),
    [("rate", "multi", "mixed_bfloat16"), ("bptt", "single", "mixed_float16")],
)
def test_half_precision_trains_like_single(gradient, step_mode, policy):
    x, y = data(16, (8, 8, 2))

    def losses(policy):
        keras.config.set_dtype_policy(policy)
        keras.utils.set_random_seed(0)
        model = compiled(spiking(convolutional(), 2, gradient, step_mode=step_mode))
        assert model.compute_dtype == keras.config.dtype_policy().compute_dtype
        assert all(
            variable.dtype == "float32" for variable in model.trainable_variables
        )
        if policy == "mixed_float16":
            assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        return np.array([float(model.train_on_batch(x, y)) for _ in range(3)])

    single, half = losses("float32"), losses(policy)
    assert np.isfinite(half).all()
    # Spikes flip where half precision rounds a membrane across its threshold.
    np.testing.assert_allclose(half, single, atol=0.1)


@pytest.mark.parametrize(("gradient", "step_mode"), MODES)
def test_spikes_are_exact_and_membranes_are_wide_in_half_precision(gradient, step_mode):
    keras.config.set_dtype_policy("mixed_float16")
    inputs = keras.Input((6,))
    model = spiking(
        keras.Model(inputs, rsnn.layers.IF()(inputs)),
        6,
        gradient,
        step_mode=step_mode,
        return_sequences=True,
    )
    # 1 + 1/2048 is not a float16: an integrator in half precision would never pass 1.
    currents = np.zeros((1, 6, 6), "float32")
    currents[:, 0], currents[:, 1] = 1.0 - 2.0**-11, 2.0**-11
    spikes = to_numpy(
        model(currents, training=True) if gradient == "bptt" else model(currents)
    )
    assert str(spikes.dtype) == "float16"
    np.testing.assert_array_equal(spikes[0, :, 0], [0, 1, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("gradient", "step_mode"),
    # JAX compiles for long what only TensorFlow could not do.
    [
        ("rate", "multi"),
        (Rate(windows=2), "single"),
        ("bptt", "multi"),
        (SLTT(1), "single"),
    ][: 1 if BACKEND == "jax" else None],
    ids=str,
)
def test_padded_sequences_and_losses_of_layers_are_in_the_default_double_precision(
    gradient, step_mode
):
    """Integers then have 64 bits on TensorFlow, which neither compares nor multiplies
    tensors of two dtypes."""
    x, y = data(4, (4, 6))
    x[np.arange(4) >= np.array([4, 3, 1, 4])[:, None]] = np.nan
    inputs = keras.Input((6,), dtype="float64")
    with double_precision():
        keras.config.set_floatx("float64")
        try:
            psn = rsnn.layers.MaskedPSN(4, 2, threshold=0.3)
            spikes = psn(AddsLoss()(layers.Dense(8)(inputs)))
            norm = rsnn.layers.TemporalEffectiveBatchNormalization(4)
            currents = norm(layers.Dense(8)(rsnn.layers.Delay(3)(spikes)))
            lif = rsnn.layers.LIF(threshold=0.3, activity_regularizer="l2")
            last = layers.Dense(3, activity_regularizer="l2")
            network = keras.Model(inputs, last(AddsLoss()(lif(currents))))
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
    ("gradient", "step_mode"),
    [("rate", "multi"), ("bptt", "single"), ("ottt", "multi")][
        : 1 if BACKEND == "jax" else None
    ],
)
def test_neurons_on_inputs_in_single_precision_are_in_double_where_their_layer_is(
    gradient, step_mode
):
    x, y = data(4, (3, 6))

    def results(dtype):
        keras.utils.set_random_seed(0)
        inputs, given = keras.Input((6,), dtype=dtype), x.astype(dtype)
        neurons = [rsnn.layers.ParametricLIF(), rsnn.layers.LIF(learn_threshold=True)]
        if gradient != "ottt":
            neurons.append(rsnn.layers.SlidingPSN(2, threshold=0.3))
        spikes = layers.Concatenate()([layer(inputs) for layer in neurons])
        network = keras.Model(inputs, layers.Dense(3)(spikes))
        model = spiking(network, 3, gradient, step_mode=step_mode)
        loss, gradients, outputs = training_results(model, given, y)
        steps = [to_numpy(model.step(given[:, t])) for t in range(2)]
        return [np.asarray(loss), *gradients.values(), outputs, *steps]

    with double_precision():
        for found, expected in zip(results("float32"), results("float64"), strict=True):
            assert found.dtype == "float64"
            np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.skipif(
    BACKEND == "tensorflow",
    reason="TensorFlow's CPU has no convolution with channels first",
)
@pytest.mark.parametrize(("gradient", "step_mode"), [MODES[0], MODES[3]])
def test_channels_first_is_channels_last(gradient, step_mode):
    x, y = data(8, (8, 8, 2))
    # Two steps could be taken for the axis of the channels.
    last = spiking(convolutional(), 3, gradient, step_mode=step_mode)
    keras.config.set_image_data_format("channels_first")
    first = spiking(convolutional(axis=1), 3, gradient, step_mode=step_mode)
    for there, here in zip(first.weights, last.weights, strict=True):
        there.assign(np.reshape(to_numpy(here), there.shape))
    loss, gradients = loss_and_gradients(first, np.moveaxis(x, -1, 1), y)
    keras.config.set_image_data_format("channels_last")
    expected_loss, expected = loss_and_gradients(last, x, y)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    for here, there in zip(gradients.values(), expected.values(), strict=True):
        np.testing.assert_allclose(here.ravel(), there.ravel(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("gradient", "step_mode"), [MODES[0], MODES[3]])
def test_a_mask_in_single_precision_after_half_is_in_single(gradient, step_mode):
    keras.config.set_dtype_policy("mixed_float16")
    inputs = keras.Input((6,))
    spikes = rsnn.layers.LIF()(layers.Dense(8)(inputs))
    network = keras.Model(inputs, layers.Dropout(0.5, seed=1, dtype="float32")(spikes))
    x, _ = data()
    outputs = spiking(network, 4, gradient, step_mode=step_mode)(x, training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    rates = to_numpy(
        spiking(keras.Model(inputs, spikes), 4, gradient, step_mode=step_mode)(x)
    ).astype("float32")
    kept = to_numpy(outputs) != 0
    assert 0 < kept.sum() < (rates != 0).sum()
    np.testing.assert_allclose(to_numpy(outputs)[kept], 2.0 * rates[kept], rtol=1e-3)


def test_the_network_sees_its_inputs_as_they_are():
    """The first layer says in which precision it takes them, as in the network without
    time."""
    keras.config.set_dtype_policy("mixed_float16")
    inputs, words = keras.Input((3,)), keras.Input((2,), dtype="int32")
    shift = layers.Rescaling(1.0, offset=-70_000.0, dtype="float32")
    exact = rsnn.layers.IF(dtype="float32")(shift(inputs))
    ones = layers.Embedding(2100, 1, embeddings_initializer="ones", dtype="float32")
    network = keras.Model([inputs, words], [exact, ones(words)])
    model = rsnn.SpikingModel(network, 1)
    numbers = np.array([[70_001.5, 70_000.5, 70_003.0]], "float32")
    x = [numbers, np.array([[1999.0, 2051.0]])]
    np.testing.assert_array_equal(to_numpy(network(x)[0]), [[1.0, 0.0, 1.0]])
    for found in (model(x), model.predict(x, verbose=0), model.step(x)):
        np.testing.assert_array_equal(to_numpy(found[0]), [[1.0, 0.0, 1.0]])
        np.testing.assert_array_equal(to_numpy(found[1]), [[[1.0], [1.0]]])


def test_a_model_made_from_another_has_its_policy_and_not_the_global_one():
    """Without it mixed_float16 would train without loss scaling."""
    inputs = keras.Input((6,))
    keras.config.set_dtype_policy("mixed_float16")
    plain = keras.Model(
        inputs, layers.Dense(3)(layers.ReLU(name="hidden")(layers.Dense(8)(inputs)))
    )
    model = spiking()
    keras.config.set_dtype_policy("float32")
    made = [
        rsnn.spikify(plain, 2, verbose=False),
        rsnn.models.add_branches(model, [model.network.layers[-2].name]),
    ]
    with pytest.warns(UserWarning, match="not 5"):
        made.append(
            rsnn.models.load_pretrained("digits", classes=5, dtype="mixed_float16")
        )
    for each in made:
        assert compiled(each).dtype_policy.name == "mixed_float16"
        assert isinstance(each.optimizer, keras.optimizers.LossScaleOptimizer)
    keras.config.set_dtype_policy("mixed_bfloat16")
    assert (
        rsnn.models.load_pretrained("digits", dtype="float32").dtype_policy.name
        == "float32"
    )


def test_single_step_mode_leaves_frozen_weights_in_single_precision():
    keras.config.set_dtype_policy("mixed_float16")
    inputs = keras.Input((6,))
    frozen = layers.Dense(8, trainable=False)
    model = spiking(
        keras.Model(inputs, layers.Dense(3)(rsnn.layers.LIF()(frozen(inputs)))),
        6,
        step_mode="single",
    )
    model.compile("sgd", "mse")
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
