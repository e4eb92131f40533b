"""Weights in int8, for inference: the outputs are those of the rounded weights, and
nothing trains them."""

import keras
import numpy as np
import pytest
from exported import outputs_of
from helpers import compiled, data, saved_and_loaded, spiking
from keras import layers

import keras_ratesnn as rsnn

BACKEND = keras.backend.backend()

T = 4


def spiking_network():
    """A network in which spikes are the inputs of all layers with weights."""
    inputs = keras.Input((6,))
    x = rsnn.layers.IF()(inputs)
    x = rsnn.layers.LIF(threshold=0.4)(layers.Dense(8, name="first")(x))
    return keras.Model(inputs, layers.Dense(3, name="second")(x))


def int4_without_blocks(mode):
    if mode == "int4":
        return keras.quantizers.Int4QuantizationConfig(block_size=None)
    return None


LARGEST = {"int8": 127, "int4": 7}


def rounded(weight, mode):
    if weight.ndim < 2:
        return weight
    scale = np.abs(weight).max(axis=0) / LARGEST[mode]
    return np.round(weight / scale) * scale


@pytest.mark.parametrize(
    ("mode", "step_mode", "gradient"),
    [("int8", "multi", "rate"), ("int8", "single", "bptt"), ("int4", "multi", "rate")],
)
def test_outputs_are_those_of_the_rounded_weights(mode, step_mode, gradient):
    x, _ = data(10)
    model = spiking(spiking_network(), T, gradient, step_mode=step_mode)
    expected = spiking(keras.models.clone_model(model.network), T)
    expected.set_weights([rounded(weight, mode) for weight in model.get_weights()])
    before = model.predict(x, verbose=0)
    model.quantize(mode, config=int4_without_blocks(mode))
    outputs = model.predict(x, verbose=0)
    assert not np.array_equal(outputs, before)
    wanted = expected.predict(x, verbose=0)
    np.testing.assert_allclose(outputs, wanted, rtol=0, atol=1e-4)


def test_a_quantized_model_is_saved_and_loaded():
    x, _ = data()
    model = spiking(spiking_network(), T)
    model.quantize("int8")
    loaded = saved_and_loaded(model)
    assert loaded.network.get_layer("first").kernel.dtype == "int8"
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )


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
    with pytest.raises(
        ValueError,
        match=r"must be 'int8' or 'int4'.* Received: mode='float8'.*training steps",
    ):
        spiking().quantize("float8")
    with pytest.raises(
        ValueError,
        match=r"must be 'int8' or 'int4'.* Received: mode='gptq'.*without time",
    ):
        spiking().quantize(
            config=keras.quantizers.GPTQConfig(dataset=["text"], tokenizer=list)
        )


@pytest.mark.filterwarnings(
    "ignore:Layer .* does not have a `quantize` method implemented"
)
@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_a_quantized_model_is_converted_with_calibrated_thresholds(mode):
    parts = [layers.Dense(16, activation="relu"), layers.Dense(4)]
    model = keras.Sequential([keras.Input((6,)), *parts])
    model.quantize(mode, config=int4_without_blocks(mode))
    x = np.abs(data(32)[0])
    options = {"calibrate": x, "percentile": 100.0, "verbose": False}
    converted = rsnn.spikify(model, timesteps=64, **options)
    wanted = model.predict(x, verbose=0)
    outputs = converted.predict(x, verbose=0)
    np.testing.assert_allclose(outputs, wanted, atol=0.1 * np.abs(wanted).max())
    for layer in converted.network.layers:
        if "Rescaling" in type(layer).__name__:
            assert layer.dtype_policy.name == "float32"


def test_layers_that_keras_does_not_quantize_are_named():
    filters = layers.Conv2D(2, 3, name="filters")
    parts = [keras.Input((4, 4, 1)), filters, rsnn.layers.LIF(), layers.Flatten()]
    message = "weights of these layers stay as they were: filters. .* format='litert'"
    with pytest.warns(UserWarning, match=message):
        spiking(keras.Sequential([*parts, layers.Dense(2)])).quantize("int8")
    message = "found no layer to quantize to int8 .* Keras quantizes Dense"
    with pytest.raises(ValueError, match=message):
        spiking(keras.Sequential(parts)).quantize("int8")


def test_a_quantized_model_is_exported_or_an_error_says_to_quantize_the_file(tmp_path):
    x, _ = data()
    model = spiking(spiking_network(), T)
    model.quantize("int8")
    if BACKEND == "torch":
        with pytest.raises(
            ValueError,
            match=r"format='onnx'` is not available for layers that Keras has "
            r"quantized.*quantize_dynamic",
        ):
            model.export(tmp_path / "model.onnx", format="onnx")
        return
    model.export(tmp_path / "model", verbose=False)
    outputs = outputs_of(tmp_path / "model", "tf_saved_model", x)
    np.testing.assert_allclose(outputs, model.predict(x, verbose=0), rtol=0, atol=1e-5)
