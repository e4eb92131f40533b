"""Training with quantised kernels and decays: a model is that of the rounded weights,
with their gradient."""

import keras
import numpy as np
import pytest
from helpers import (
    assert_close,
    chain,
    compiled,
    data,
    mlp,
    rate_and_bptt,
    saved_and_loaded,
    spiking,
    to_numpy,
    training_results,
)
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn import deploy
from keras_ratesnn.layers.quantized import QuantizedKernels

own = rsnn.layers
T = 3
DECAY = 77 / 256


def network(decay=0.3, decay_bits=None):
    """Convolutions, one of them called twice, with batch normalisation, pooling and a
    nested model."""
    inputs = keras.Input((4, 4, 2))
    stem = layers.Conv2D(4, 3, padding="same", use_bias=False, name="stem")
    x = layers.BatchNormalization()(stem(inputs))
    x = own.LIF(decay, threshold=0.5, name="neurons")(x)
    shared = layers.Conv2D(4, 3, padding="same", name="shared")
    x = own.LIF(decay, threshold=0.3)(shared(x))
    learning = own.ParametricLIF(
        0.6, threshold=0.3, decay_bits=decay_bits, name="learning"
    )
    x = layers.Add()([x, learning(shared(x))])
    x = layers.AveragePooling2D(2, strides=1)(x)
    inner = keras.Input(x.shape[1:])
    currents = layers.DepthwiseConv2D(2, name="depthwise")(inner)
    nested = keras.Model(inner, own.IF(threshold=0.3)(currents), name="nested")
    x = layers.Flatten()(nested(x))
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def quantized_layers(model):
    inside = model.network._flatten_layers(include_self=False)
    return {
        layer.name: layer for layer in inside if isinstance(layer, QuantizedKernels)
    }


def rounded(low, plain):
    """A model of ordinary layers, with the kernels that a quantise-aware model uses."""
    used = {
        id(layer.weights[0]): to_numpy(layer.used_kernel())
        for layer in quantized_layers(low).values()
    }
    plain.set_weights(
        [used.get(id(weight), to_numpy(weight)) for weight in low.weights]
    )
    return plain


def with_random_weights(model):
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(variable + random.normal(0.0, 0.2, variable.shape))
    return model


def check_equal(low, plain, x, y, rtol=1e-4, atol=1e-6):
    """That a training step is the same: loss, gradients, outputs, and statistics after
    it."""
    close = {"rtol": rtol, "atol": atol}
    loss, gradients, outputs = training_results(low, x, y)
    expected_loss, expected, expected_outputs = training_results(plain, x, y)
    assert_allclose(loss, expected_loss, rtol=rtol)
    assert_allclose(np.float32(outputs), np.float32(expected_outputs), **close)
    assert any(np.any(gradient) for gradient in gradients.values())
    assert_close(list(gradients.values()), list(expected.values()), **close)
    assert_close(low.non_trainable_variables, plain.non_trainable_variables, **close)


@pytest.mark.parametrize(
    ("settings", "policy"),
    [
        ({"gradient": "rate"}, "mixed_bfloat16"),
        ({"gradient": "rate", "mask_value": -7.0}, "float32"),
        ({"gradient": "bptt"}, "float32"),
        ({"gradient": "sltt", "step_mode": "single"}, "float32"),
    ],
)
def test_outputs_and_gradients_are_those_of_the_rounded_network(settings, policy):
    keras.config.set_dtype_policy(policy)
    is_masked = "mask_value" in settings
    x, y = data(4, (T, 4, 4, 2) if is_masked else (4, 4, 2))
    if is_masked:
        x[:2, 2:] = -7.0
    model = spiking(network(), T, **settings)
    low = deploy.quantize_aware(
        with_random_weights(model), weights="ternary", first="int4"
    )
    plain = rounded(low, spiking(network(DECAY, 8), T, **settings))
    is_half = policy != "float32"
    rtol, atol = (1e-2, 1e-4) if is_half else (1e-4, 1e-6)
    check_equal(low, plain, x, y, rtol, atol)


def facts_of(model, fact):
    layers = quantized_layers(model)
    return {name: getattr(layer, fact) for name, layer in layers.items()}


def test_layers_have_the_types_of_their_places_and_one_scale_for_all_classes():
    model = spiking(network(), T)
    before = model.get_weights()
    low = deploy.quantize_aware(model, "ternary", first="int8", last="int4")
    inner = {"shared": "ternary", "depthwise": "ternary"}
    types = {"stem": "int8", **inner, "head": "int4"}
    assert facts_of(low, "weight_type") == types
    assert facts_of(low, "per_channel") == {**dict.fromkeys(types, True), "head": False}
    assert_close(low.get_weights(), before, rtol=0)
    assert_close(model.get_weights(), before, rtol=0)
    assert not quantized_layers(model)
    settings = low.timesteps, repr(low.gradient), low.step_mode
    assert settings == (model.timesteps, repr(model.gradient), model.step_mode)
    # From one type to the next, and a part of the layers.
    lower = deploy.quantize_aware(low, "int4", filters=["shared", "^h"])
    expected = {**types, "shared": "int4", "head": "int8"}
    assert facts_of(lower, "weight_type") == expected
    # A network that ends in neurons has a scale for each class.
    ends = chain(layers.Dense(3, name="last"), own.LIF())
    ends = deploy.quantize_aware(spiking(ends, T), "ternary")
    assert facts_of(ends, "per_channel") == {"last": True}


@pytest.mark.parametrize(
    ("layer", "sixteenths"),
    [
        (own.LIF([0.2, 0.3, 0.7, 0.5]), {"decay": [3, 5, 11, 8]}),
        (own.CuBaLIF(0.3, synaptic_decay=0.45), {"decay": 5, "synaptic_decay": 7}),
        (own.Recurrent(own.LIF(0.7), own.Scale(0.5)), {"decay": 11}),
        (own.ParametricLIF(0.999, per_channel=True), {"effective_decay": 15}),
        (own.LeakyReadout(0.9), {"decay": 14}),
    ],
)
def test_decays_are_multiples_of_a_power_of_two(layer, sixteenths):
    parts = own.LIF(name="first"), layers.Dense(4, name="dense"), layer
    model = spiking(chain(*parts, shape=(4,)), T, "bptt")
    low = deploy.quantize_aware(model, decay_bits=4).network.layers[-1]
    for name, expected in sixteenths.items():
        if name == "effective_decay":
            decays = to_numpy(low.cell.effective_decay())
        else:
            decays = getattr(getattr(low, "neuron", low), name)
        assert_array_equal(16 * np.array(decays), np.array(expected))


@rate_and_bptt
def test_a_learned_decay_is_rounded_in_each_call_and_learns_at_the_rounded_value(
    gradient,
):
    def model(decay, bits):
        settings = {"threshold": 0.5, "per_channel": True, "decay_bits": bits}
        kernel = keras.initializers.RandomNormal(stddev=1.0, seed=1)
        last = layers.Dense(3, kernel_initializer=kernel)
        neurons = own.ParametricLIF(decay, **settings)
        return spiking(chain(neurons, last), T, gradient)

    exact, actual = model(11 / 16, None), model(0.7, 4)
    check_equal(actual, exact, *data(4), rtol=1e-5)
    compiled(actual, keras.optimizers.SGD(10.0)).fit(*data(4), epochs=1, verbose=0)
    cell = actual.network.layers[1].cell
    sixteenths = np.round(16 / (1 + np.exp(-to_numpy(cell.decay_logit))))
    assert len(np.unique(sixteenths)) > 1
    expected = np.clip(sixteenths, 1, 15) / 16
    assert_array_equal(to_numpy(cell.effective_decay()), expected)


@pytest.mark.parametrize(
    "neuron",
    [own.ILIF(2, decay=0.5, name="ilif"), own.LIF(0.5, threshold=0.4, name="binary")],
)
def test_folding_unrolling_and_files_keep_the_integers(neuron, tmp_path):
    """Of a folded kernel the integers are the same, but for signs, since normalisation
    scales whole channels."""

    def assert_same(model):
        outputs = model.predict(x, verbose=0)
        assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)

    def signs_of(weight):
        return np.sign(to_numpy(weight))

    network = chain(
        layers.Conv2D(4, 3, name="filters"),
        layers.BatchNormalization(name="normalization"),
        own.LIF(0.5, threshold=0.4),
        layers.DepthwiseConv2D(2),
        neuron,
        layers.Flatten(),
        own.WSDense(5),
        own.LIF(0.5, threshold=0.4),
        layers.Dense(3),
        shape=(5, 5, 2),
    )
    model = with_random_weights(spiking(network, T))
    model = deploy.quantize_aware(model, "ternary", "ternary")
    x, _ = data(4, (5, 5, 2))
    expected = model.predict(x, verbose=0)
    folded = deploy.fold_batch_normalization(model, verbose=False)
    assert not folded.fold_report.kept
    kernel = signs_of(model.network.get_layer("filters").kernel)
    signs = signs_of(model.network.get_layer("normalization").gamma)
    folded_kernel = folded.network.get_layer("filters").kernel
    assert_array_equal(signs_of(folded_kernel), kernel * signs)
    assert_same(folded)
    assert_same(saved_and_loaded(model))
    if isinstance(neuron, own.ILIF):
        assert_same(deploy.unroll(model))
    else:
        deploy.export_nir(model, tmp_path / "network.nir")
        assert_same(deploy.import_nir(tmp_path / "network.nir", T))


def test_layers_that_stay_as_they_were_are_named():
    einsum = layers.EinsumDense("abc,cd->abd", (None, 4), name="einsum")
    recurrent = own.Recurrent(own.ParametricLIF(), layers.Dense(4, name="back"))
    network = chain(einsum, own.LIF(), recurrent, layers.Dense(2), shape=(6, 4))
    model = spiking(network, T, "bptt")
    message = "weights of these layers stay as they were: einsum, back. Dense layers"
    with pytest.warns(UserWarning, match=message):
        low = deploy.quantize_aware(model)
    assert [*quantized_layers(low)] == ["dense"]
    deploy.quantize_aware(model, filters=lambda layer: layer.name == "dense")


def learned_decay():
    neurons = own.LIF(learn_decay=True, name="learned")
    return spiking(chain(neurons, layers.Dense(2)), T)


def quantized():
    model = spiking(timesteps=T)
    model.network.layers[-1].quantize("int8")
    return model


@pytest.mark.parametrize(
    ("make", "arguments", "error", "message"),
    [
        (spiking, {"weights": "int2"}, ValueError, "`weights` .*Received: weights='in"),
        (spiking, {"filters": 3}, TypeError, "a regular expression.*: filters=3"),
        (
            spiking,
            {"filters": "conv"},
            ValueError,
            "no layer to quantise.*`filters` ch",
        ),
        (
            lambda: spiking(mlp(decay=0.99)),
            {"decay_bits": 4},
            ValueError,
            "decay_bits=4, which rounds decay=0.99 of layer 'lif",
        ),
        (
            learned_decay,
            {},
            ValueError,
            "Received: layer 'learned'.* Use ParametricLIF",
        ),
        (quantized, {}, ValueError, "for inference.*Pass the model before"),
    ],
)
def test_wrong_arguments_are_errors(make, arguments, error, message):
    with pytest.raises(error, match=message):
        deploy.quantize_aware(make(), **arguments)
