"""Unrolled networks: spikes of 0 and 1, and the outputs, energy and files of the
network with integer spikes."""

import functools

import exported
import keras
import numpy as np
import pytest
from drawn_networks import draw, give_weights
from helpers import (
    BACKEND,
    chain,
    saved_and_loaded,
    spiking,
    to_numpy,
)
from keras import layers, ops
from next_cases import NextCase

from keras_ratesnn import analysis, deploy
from keras_ratesnn.layers import (
    IF,
    ILIF,
    LIF,
    Delay,
    LeakyReadout,
    MaskedPSN,
    Recurrent,
    SlidingPSN,
)

ilif = functools.partial(ILIF, 4)


VGG = """BatchNormalization Conv2D MaxPooling2D Add WSConv2D Rescaling LIF
SeparableConv2D ZeroPadding2D Dropout AveragePooling2D"""
ATTENTION = "spiking_self_attention token_attention EinsumDense BatchNormalization"


def vgg():
    """Pooling, several numbers of levels, binary neurons, sums of currents."""
    return draw(VGG.split(), 0, (8, 8, 3))


def attention():
    """Products of three tensors of spikes, a bias with axes of its own."""
    return draw(ATTENTION.split(), 0, (3, 2, 8))


def normalized(x):
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
    return layers.BatchNormalization()(x)


def detector():
    """Nested models, a layer that is called twice, several outputs, one of them spikes,
    and a sum of spikes before pooling."""
    inputs, features = keras.Input((8, 8, 3)), keras.Input((8, 8, 4))
    spikes = ilif(name="neurons")(normalized(features))
    block = keras.Model(features, spikes, name="block")
    x = block(ilif(name="neurons")(normalized(inputs)))
    pooled, passed = ops.split(x, 2, axis=-1)
    passed = ops.pad(passed, ((0, 0), (0, 0), (0, 0), (0, 2)))
    x = ops.concatenate([layers.Add()([x, block(x)]), passed], axis=-1)
    pooled = ops.max_pool(pooled, (2, 2), strides=(2, 2))
    x = layers.Concatenate()([layers.MaxPooling2D(2)(x), pooled])
    x = layers.Conv2D(4, 1)(x)
    head, neurons = layers.Conv2D(4, 1, name="head"), ilif(name="last")
    boxes = head(neurons(head(x)))
    spikes = neurons(layers.Concatenate()([x, boxes])[..., :4] + boxes)
    return keras.Model(inputs, {"boxes": boxes, "spikes": spikes})


def dense():
    return chain(layers.Dense(8), ilif(), layers.Dense(3))


def both(build, timesteps=2, **arguments):
    """A model with weights that matter, biases and statistics included, and what it
    becomes."""
    network = build()
    give_weights(network, np.random.default_rng(0))
    model = spiking(network, timesteps, **arguments)
    return model, deploy.unroll(model)


def images_for(model, with_time, samples=8):
    shape = model.network.inputs[0].shape[1:]
    shape = (model.timesteps, *shape) if with_time else shape
    return np.random.default_rng(1).normal(size=(samples, *shape)).astype("float32")


def assert_same(actual, expected, tolerance=1e-6):
    """To 1e-6, except that in one sample of twenty a membrane may be within rounding of
    where its integer changes."""
    pairs = zip(keras.tree.flatten(actual), keras.tree.flatten(expected), strict=True)
    for ours, theirs in pairs:
        assert theirs.std() > 0.05
        far = np.abs(ours - theirs) > tolerance * np.abs(theirs).max()
        assert far.reshape(len(far), -1).any(axis=1).mean() <= 0.05


@pytest.mark.parametrize(
    ("build", "with_time"),
    [(vgg, True), (attention, False), (detector, False)],
)
def test_outputs_and_energy_are_those_of_the_integer_network(build, with_time):
    model, binary = both(build)
    x = images_for(model, with_time)
    assert binary.timesteps == model.timesteps * 4
    assert_same(binary.predict_on_batch(x), model.predict_on_batch(x))
    ours, theirs = analysis.energy(model, x), analysis.energy(binary, x)
    for count in ("multiply_adds", "accumulates", "dense_multiply_adds"):
        expected = pytest.approx(sorted(getattr(theirs, count)), rel=1e-6)
        assert sorted(getattr(ours, count)) == expected
    # A substep reads numbers and all weights again.
    for part in ("operations", "membranes", *["activations"] * (build is vgg)):
        expected = pytest.approx(getattr(theirs.spiking, part).sum(), rel=1e-6)
        assert getattr(ours.spiking, part).sum() == expected
    assert ours.quantized.total == pytest.approx(theirs.quantized.total)


def test_substeps_and_outputs_are_those_of_spikingjelly():
    case = NextCase("ilif_mlp")
    arrays, values = case.arrays, (case.settings["levels"], case.settings["decay"])
    neurons = {at: ILIF(*values) for at in ("a", "b")}
    model = case.dense_model(lambda x, synapse, at: neurons[at](synapse(x)))
    binary, x = deploy.unroll(model), case.x
    for layer, slots in zip(neurons.values(), ("n1", "n2"), strict=True):
        actual = analysis.raster(binary, x, layer.name, 16).spikes
        np.testing.assert_array_equal(actual, arrays[f"slots/{slots}"])
    expected = arrays["binary_logits"]
    np.testing.assert_allclose(to_numpy(binary(x)), expected, rtol=1e-5, atol=1e-6)
    assert np.abs(arrays["weight/c.bias"]).max() > 0.01


def test_it_predicts_sequences_and_has_other_numbers_of_steps():
    model, binary = both(vgg, return_sequences=True)
    x = images_for(model, with_time=True)
    actual = binary.predict(x, verbose=0)
    assert_same(actual.reshape(8, 2, 4, 3)[:, :, 3], model.predict(x, verbose=0))
    binary.timesteps = 4
    assert to_numpy(binary(x[:, :1])).shape == (8, 4, 3)


@pytest.mark.backends(3)
def test_its_file_gives_the_same_outputs(tmp_path):
    model, binary = both(dense)
    x = images_for(model, with_time=False)
    format = "onnx" if BACKEND == "torch" else "tf_saved_model"
    path = tmp_path / f"binary{exported.SUFFIXES[format]}"
    binary.export(path, format=format, verbose=False)
    actual = exported.outputs_of(path, format, x)
    assert_same(actual, to_numpy(model(x)), tolerance=1e-5)


def gelu(x):
    return layers.Activation("gelu", name="gelu")(ilif()(x))


def stabilized(x):
    return ilif()(LIF(threshold_stabilizer=True, name="stabilized")(x))


@pytest.mark.parametrize(
    ("hidden", "message"),
    [
        (gelu, "exact on single spikes. Received: 'gelu' of type Activation: .* is no"),
        (stabilized, "'stabilized' of type LIF: its thresholds"),
        (IF(), "must have neurons with integer spikes, .* at most once in a step"),
    ],
)
def test_what_cannot_be_unrolled_is_an_error(hidden, message):
    with pytest.raises(ValueError, match=message):
        deploy.unroll(spiking(chain(hidden, shape=(4,)), 1, "bptt"))


@pytest.mark.filterwarnings("ignore:The weights of these layers stay")
def test_it_is_quantized_after_it_was_unrolled():
    model, binary = both(attention)
    x = images_for(model, with_time=False)
    binary.quantize("int8")
    assert np.abs(binary.predict_on_batch(x) - model.predict_on_batch(x)).max() < 0.2
    model.quantize("int8")
    message = "`model` must not be quantized: .* Unroll the model, then quantize it"
    with pytest.raises(ValueError, match=message):
        deploy.unroll(model)


def test_what_an_unrolled_model_cannot_do_is_an_error(tmp_path):
    def refuses(message, call, *arguments):
        with pytest.raises(ValueError, match=message):
            call(*arguments)

    _, binary = both(dense)
    binary.compile("sgd", "mse")
    batch = np.zeros((2, 6), "float32"), np.zeros((2, 3))
    refuses("An unrolled model cannot be trained", binary.fit, *batch)
    message = '`step_mode="single"` must not run an unrolled network one time step'
    refuses(message, setattr, binary, "step_mode", "single")
    message = "`export_step` must not run an unrolled network"
    refuses(message, deploy.export_step, binary, tmp_path / "step")
    message = "`timesteps` must be a multiple of 4"
    refuses(message, setattr, binary, "timesteps", 6)
    frames = np.zeros((2, 8, 6), "float32")
    message = "one frame for each of timesteps=2.*model.timesteps = 32"
    refuses(message, binary, frames)


def with_memory_of_inputs():
    """Layers that see earlier steps: delays, parallel and recurrent neurons."""
    back = layers.Dense(8, kernel_initializer="ones")
    parts = [
        ilif(threshold=0.25),
        layers.Dense(8),
        Delay(3),
        SlidingPSN(2, threshold=0.25),
        layers.Dense(8),
        Delay(3),
        MaskedPSN(6, 2, threshold=0.25),
        layers.Dense(8),
        Recurrent(ILIF(2, threshold=0.25), back),
        layers.Dense(3),
        LeakyReadout(0.5),
    ]
    return spiking(chain(layers.Dense(8), *parts), 6, "bptt")


def test_layers_that_see_earlier_steps_see_steps_also_with_padding_and_in_a_file():
    model = with_memory_of_inputs()
    binary = deploy.unroll(model)
    x = np.random.default_rng(0).normal(size=(6, 6, 6)).astype("float32")
    steps = [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 0, 1, 1, 0, 1]]
    mask = np.array(steps * 2, bool)
    padded = np.where(mask[..., None], x, np.nan).astype("float32")
    assert_same(to_numpy(binary(padded, mask=mask)), to_numpy(model(padded, mask=mask)))
    ours = sorted(analysis.energy(binary, x).multiply_adds)
    theirs = sorted(analysis.energy(model, x).multiply_adds)
    assert ours == pytest.approx(theirs)
    assert_same(to_numpy(saved_and_loaded(binary)(x)), to_numpy(model(x)))


def test_it_runs_for_no_more_steps_than_the_original():
    binary = deploy.unroll(with_memory_of_inputs())
    message = "`timesteps` must be at most 24, the number of time steps that layer 'mas"
    with pytest.raises(ValueError, match=message):
        binary.timesteps = 28
    frame = np.zeros((2, 6), "float32")
    for _ in range(6):
        binary.step(frame)
    message = r"'masked_psn.*' has weights for 6 steps. Received: step 7"
    with pytest.raises(ValueError, match=message):
        binary.step(frame)


class Unbuilt(layers.Layer):
    """A layer that has no `build`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inside = layers.Dense(4)

    def call(self, inputs):
        return self.inside(inputs)


def test_casts_to_integers_and_layers_without_build_are_exact():
    inputs = keras.Input((4,))
    halves = 0.5 * ilif(threshold=0.25)(Unbuilt()(inputs))
    integers = ops.cast(ops.cast(halves, "int32"), "float32")
    booleans = ops.cast(ops.cast(halves, "bool"), "float32")
    network = keras.Model(inputs, layers.Dense(3)(integers + booleans))
    model = spiking(network, 2)
    x = images_for(model, with_time=True)
    assert_same(to_numpy(deploy.unroll(model)(x)), to_numpy(model(x)))
