"""Half and double precision in every step mode, and weights in int8, for inference: the
outputs are those of the rounded weights, and nothing trains them."""

import keras
import numpy as np
import pytest
from exported import outputs_of
from helpers import (
    assert_close,
    both_step_modes,
    chain,
    compiled,
    data,
    double_precision,
    loss_and_gradients,
    saved_and_loaded,
    spiking,
    to_numpy,
    training_results,
    two_methods,
)
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import Rate
from keras_ratesnn.layers import (
    IF,
    LIF,
    Delay,
    MaskedPSN,
    ParametricLIF,
    SlidingPSN,
    TemporalEffectiveBatchNormalization,
)

BACKEND = keras.backend.backend()


@both_step_modes
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


@two_methods
def test_spikes_are_exact_and_membranes_are_wide_in_half_precision(gradient, step_mode):
    keras.config.set_dtype_policy("mixed_float16")
    options = {"step_mode": step_mode, "return_sequences": True}
    model = spiking(chain(IF()), 6, gradient, **options)
    # 1 + 1/2048 is not a float16: an integrator in half precision would never pass 1.
    currents = np.zeros((1, 6, 6), "float32")
    currents[:, 0], currents[:, 1] = 1.0 - 2.0**-11, 2.0**-11
    spikes = to_numpy(model(currents, training=gradient == "bptt"))
    assert spikes.dtype == "float16"
    assert_array_equal(spikes[0, :, 0], [0, 1, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("gradient", "step_mode"),
    # JAX compiles for long what only TensorFlow could not do.
    [("rate", "multi"), (Rate(windows=2), "single")][: 1 if BACKEND == "jax" else None],
    ids=str,
)
def test_all_is_in_the_default_double_precision_also_where_inputs_are_in_single(
    gradient, step_mode
):
    """Integers then have 64 bits on TensorFlow, which neither compares nor multiplies
    tensors of two dtypes."""
    x, y = data(4, (4, 6))
    x[np.arange(4) >= np.array([4, 3, 1, 4])[:, None]] = np.nan

    def results(dtype):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6,), dtype=dtype)
        neurons = [
            ParametricLIF(),
            LIF(learn_threshold=True),
            SlidingPSN(2, threshold=0.3),
            MaskedPSN(4, 2, threshold=0.3),
        ]
        x_of_dtype = x.astype(dtype)
        outputs = layers.Concatenate()([layer(inputs) for layer in neurons])
        for layer in (
            Delay(3),
            layers.Dense(8),
            TemporalEffectiveBatchNormalization(4),
            LIF(threshold=0.3, activity_regularizer="l2"),
            layers.Dense(3, activity_regularizer="l2"),
        ):
            outputs = layer(outputs)
        options = {"step_mode": step_mode, "mask_value": np.nan}
        model = spiking(keras.Model(inputs, outputs), 4, gradient, **options)
        _, gradients, outputs = training_results(model, x_of_dtype, y)
        return [*gradients.values(), outputs, to_numpy(model.step(x_of_dtype[:, 0]))]

    with double_precision():
        keras.config.set_floatx("float64")
        try:
            single, double = results("float32"), results("float64")
        finally:
            keras.config.set_floatx("float32")
    assert {str(array.dtype) for array in single} == {"float64"}
    assert all(np.isfinite(array).all() and array.any() for array in single)
    assert_close(single, double, rtol=1e-12)


def test_a_mask_in_single_precision_after_half_is_in_single():
    keras.config.set_dtype_policy("mixed_float16")
    inputs = keras.Input((6,))
    spikes = LIF()(layers.Dense(8)(inputs))
    masked = layers.Dropout(0.5, seed=1, dtype="float32")(spikes)
    model = spiking(keras.Model(inputs, [masked, spikes]), 4)
    outputs, rates = to_numpy(model(data()[0], training=True))
    assert outputs.dtype == "float32"
    is_left = outputs != 0
    assert 0 < is_left.sum() < (rates != 0).sum()
    assert_allclose(outputs[is_left], 2.0 * rates[is_left], rtol=1e-3)


def test_the_network_sees_its_inputs_as_they_are():
    """The first layer says in which precision it takes them, as in the network without
    time."""
    keras.config.set_dtype_policy("mixed_float16")
    inputs, words = keras.Input((3,)), keras.Input((2,), dtype="int32")
    shift = layers.Rescaling(1.0, offset=-70_000.0, dtype="float32")
    exact = IF(dtype="float32")(shift(inputs))
    ones = layers.Embedding(2100, 1, embeddings_initializer="ones", dtype="float32")
    network = keras.Model([inputs, words], [exact, ones(words)])
    model = rsnn.SpikingModel(network, 1)
    numbers = np.array([[70_001.5, 70_000.5, 70_003.0]], "float32")
    x = [numbers, np.array([[1999.0, 2051.0]])]
    for outputs in (model(x), model.predict(x, verbose=0), model.step(x)):
        spikes, ones_of_words = to_numpy(outputs)
        assert spikes.tolist() == [[1.0, 0.0, 1.0]]
        assert ones_of_words.all()


def test_a_model_made_from_another_has_its_policy_and_not_the_global_one():
    """Without it mixed_float16 would train without loss scaling."""
    keras.config.set_dtype_policy("mixed_float16")
    plain, model = chain(layers.Dense(8, "relu"), layers.Dense(3)), spiking()
    keras.config.set_dtype_policy("float32")
    for made in (
        rsnn.spikify(plain, 2, verbose=False),
        rsnn.models.add_branches(model, [model.network.layers[-2].name]),
        rsnn.models.load_pretrained("digits", dtype="mixed_float16"),
    ):
        assert compiled(made).dtype_policy.name == "mixed_float16"
        assert isinstance(made.optimizer, keras.optimizers.LossScaleOptimizer)
    keras.config.set_dtype_policy("mixed_bfloat16")
    single = rsnn.models.load_pretrained("digits", dtype="float32")
    assert single.dtype_policy.name == "float32"


def test_single_steps_have_weights_in_single_precision():
    """So that the sums of gradients over steps have digits beyond half precision, and
    frozen weights stay."""
    keras.config.set_dtype_policy("mixed_float16")
    frozen = layers.Dense(8, trainable=False)
    network = chain(frozen, LIF(), layers.Dense(3))
    before = to_numpy(frozen.kernel)
    model = spiking(network, 6, "sltt", step_mode="single")
    model.predict(data(8)[0], verbose=0)
    assert_array_equal(to_numpy(frozen.kernel), before)
    _, gradients = loss_and_gradients(
        spiking(step_mode="single", gradient="sltt"), *data(4, (3, 6))
    )
    kernel = next(iter(gradients.values()))
    assert np.mean(kernel.astype("float16") == kernel) < 0.8


T = 4


def spiking_network():
    """A network in which spikes are the inputs of all layers with weights."""
    first, second = layers.Dense(8, name="first"), layers.Dense(3, name="second")
    return chain(IF(), first, LIF(threshold=0.4), second)


WITHOUT_BLOCKS = keras.quantizers.Int4QuantizationConfig(block_size=None)
LARGEST = {"int8": 127, "int4": 7}


def rounded(weight, mode):
    if weight.ndim < 2:
        return weight
    scale = np.abs(weight).max(axis=0) / LARGEST[mode]
    return np.round(weight / scale) * scale


@pytest.mark.parametrize(
    ("mode", "config", "step_mode", "gradient"),
    [("int8", None, "multi", "rate"), ("int4", WITHOUT_BLOCKS, "single", "bptt")],
)
def test_outputs_are_those_of_the_rounded_weights(mode, config, step_mode, gradient):
    x, _ = data(10)
    model = spiking(spiking_network(), T, gradient, step_mode=step_mode)
    expected = spiking(keras.models.clone_model(model.network), T)
    expected.set_weights([rounded(weight, mode) for weight in model.get_weights()])
    before = model.predict(x, verbose=0)
    model.quantize(mode, config=config)
    outputs = model.predict(x, verbose=0)
    assert not np.array_equal(outputs, before)
    wanted = expected.predict(x, verbose=0)
    assert_allclose(outputs, wanted, rtol=0, atol=1e-4)
    loaded = saved_and_loaded(model)
    assert "int8" in str(loaded.network.get_layer("first").kernel.dtype)
    assert_array_equal(loaded.predict(x, verbose=0), outputs)


def test_training_a_quantized_model_is_an_error_and_testing_is_not():
    x, y = data()
    model = compiled(spiking(spiking_network(), T))
    model.network.quantize("int8", filters="second")
    assert np.isfinite(model.evaluate(x, y, verbose=0))
    message = "cannot be trained.*layer 'second' of type Dense.* 'int8_from_float32'"
    for train in (
        model.fit,
        model.train_on_batch,
        lambda x, y: model(x, training=True),
    ):
        with pytest.raises(ValueError, match=message):
            train(x, y)


def test_modes_that_are_not_for_spiking_networks_are_errors():
    message = "must be 'int8' or 'int4'.* Received: mode="
    with pytest.raises(ValueError, match=f"{message}'float8'.*training steps"):
        spiking().quantize("float8")
    config = keras.quantizers.GPTQConfig(dataset=["text"], tokenizer=list)
    with pytest.raises(ValueError, match=f"{message}'gptq'.*without time"):
        spiking().quantize(config=config)


@pytest.mark.filterwarnings(
    "ignore:Layer .* does not have a `quantize` method implemented"
)
def test_a_quantized_model_is_converted_with_calibrated_thresholds():
    model = chain(layers.Dense(16, activation="relu"), layers.Dense(4))
    model.quantize("int8")
    x = np.abs(data(32)[0])
    options = {"calibrate": x, "percentile": 100.0, "verbose": False}
    converted = rsnn.spikify(model, timesteps=64, **options)
    wanted = model.predict(x, verbose=0)
    outputs = converted.predict(x, verbose=0)
    assert_allclose(outputs, wanted, atol=0.1 * np.abs(wanted).max())
    for layer in converted.network.layers:
        if "Rescaling" in type(layer).__name__:
            assert layer.dtype_policy.name == "float32"


def test_layers_that_keras_does_not_quantize_are_named():
    filters = layers.Conv2D(2, 3, name="filters")
    parts = filters, LIF(), layers.Flatten()
    message = "weights of these layers stay as they were: filters. .* format='litert'"
    with pytest.warns(UserWarning, match=message):
        spiking(chain(*parts, layers.Dense(2), shape=(4, 4, 1))).quantize("int8")
    message = "found no layer to quantize to int8 .* Keras quantizes Dense"
    with pytest.raises(ValueError, match=message):
        spiking(chain(*parts, shape=(4, 4, 1))).quantize("int8")


def test_a_quantized_model_is_exported_or_an_error_says_to_quantize_the_file(tmp_path):
    x, _ = data()
    model = spiking(spiking_network(), T)
    model.quantize("int8")
    if BACKEND == "torch":
        message = r"format='onnx'` is not available for .*quantized.*quantize_dynamic"
        with pytest.raises(ValueError, match=message):
            model.export(tmp_path / "model.onnx", format="onnx")
        return
    model.export(tmp_path / "model", verbose=False)
    outputs = outputs_of(tmp_path / "model", "tf_saved_model", x)
    assert_allclose(outputs, model.predict(x, verbose=0), rtol=0, atol=1e-5)
