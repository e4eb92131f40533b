"""Projects of hls4ml: their simulation gives the spikes and logits of the network, with a C++ compiler alone."""

import shutil

import keras
import numpy as np
import pytest
from keras import layers

import keras_ratesnn as rsnn

GXX = shutil.which("g++")
pytestmark = pytest.mark.runs_once
T = 6


def chip_of(inputs, outputs, **kwargs):
    """The integers of a network with biases and decays that differ."""
    model, random = rsnn.SpikingModel(keras.Model(inputs, outputs), T), np.random.default_rng(0)
    for layer in model.network.layers:
        if isinstance(layer, layers.Dense):
            layer.kernel.assign(random.normal(0.1, 1, layer.kernel.shape) / np.sqrt(layer.kernel.shape[0]))
            layer.bias.assign(random.integers(-8, 9, layer.bias.shape) / 64)
        elif isinstance(layer, rsnn.layers.ParametricLIF):
            (decays,) = layer.trainable_weights
            decays.assign(np.linspace(-2, 2, 9)[None])
    return rsnn.integer(model, verbose=False, **kwargs)


def mixed_neurons():
    """Dense layers with all neurons and resets."""
    x = inputs = keras.Input((7,))
    x = layers.Rescaling(1 / 255)(x)
    for neurons in (
        rsnn.layers.LIF(0.3, threshold=0.4),
        rsnn.layers.ILIF(4, 0.8, 0.5),
        rsnn.layers.ParametricLIF(0.6, per_channel=True, threshold=0.6, reset="hard", v_reset=-0.25, initial_membrane=0.2),
        rsnn.layers.IF(threshold=0.5, reset="hard", reset_delay=True, initial_membrane=0.25),
        rsnn.layers.LIF(0.7, threshold=0.4, reset_delay=True),
    ):
        x = neurons(layers.Dense(9)(x))
    return chip_of(inputs, layers.Dense(4)(x))


def images_to_spikes():
    """Spikes of pixels, so bright that membranes saturate; ternary weights; an output of spikes."""
    inputs = keras.Input((4, 3, 2))
    x = layers.Flatten()(rsnn.layers.LIF(0.5, threshold=10.0)(inputs))
    for size in (8, 8, 5):
        x = rsnn.layers.LIF(0.5, threshold=0.3)(layers.Dense(size)(x))
    return chip_of(inputs, x, weights="ternary", membrane_bits=10)


@pytest.mark.parametrize(
    ("make", "of_frames", "reuse_factor"), [(mixed_neurons, False, 1), (images_to_spikes, True, 4)], ids=["mixed", "images"]
)
def test_the_simulation_gives_spikes_and_logits(make, of_frames, reuse_factor, tmp_path):
    if GXX is None:
        pytest.skip("there is no g++ on the path")
    chip = make()
    shape = (200, T, *chip.plan.input_shape) if of_frames else (200, *chip.plan.input_shape)
    random = np.random.default_rng(1)
    x = random.integers(0, 256, shape, "uint8") * (random.random(shape) < 0.3)
    expected = chip.layer_outputs(x)
    project = rsnn.export_hls4ml(chip, tmp_path / "net", reuse_factor=reuse_factor)
    frames = x if of_frames else np.repeat(x, T, axis=0)
    logits, spikes = project.trace(frames.reshape(200 * T, -1).astype("float64"))
    np.testing.assert_array_equal(logits.reshape(200, T, -1), expected[chip.plan.layers[-1].name])
    neurons = {f"neurons_{number}": layer.name for number, layer in enumerate(chip.plan.layers) if layer.kind == "neurons"}
    assert list(spikes) == list(neurons)
    for name, layer in neurons.items():
        assert 0.02 < (expected[layer] > 0).mean() < 0.98
        np.testing.assert_array_equal(spikes[name].reshape(200, T, -1), expected[layer].reshape(200, T, -1))


def test_layers_that_hls4ml_lacks_are_refused_by_name(tmp_path):
    inputs = keras.Input((4, 4, 1))
    x = layers.Flatten()(rsnn.layers.LIF()(layers.Conv2D(2, 3, name="filters")(inputs)))
    with pytest.raises(ValueError, match=r"Received: layer 'filters' of kind 'conv' after 'input'. Use .*export_c"):
        rsnn.export_hls4ml(chip_of(inputs, layers.Dense(2)(x)), tmp_path / "net")
    inputs = keras.Input((4,))
    x = rsnn.layers.LIF()(layers.Dense(3)(inputs))
    x = layers.Add()([x, rsnn.layers.LIF()(layers.Dense(3, name="branch")(x))])
    with pytest.raises(ValueError, match=r"Received: layer 'add\w*' of kind 'add' after 'lif\w*', 'lif\w*'"):
        rsnn.export_hls4ml(chip_of(inputs, layers.Dense(2)(x)), tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_names_and_models_are_checked(tmp_path):
    inputs = keras.Input((4,))
    chip = chip_of(inputs, layers.Dense(3)(rsnn.layers.LIF()(layers.Dense(3)(inputs))))
    with pytest.raises(ValueError, match="identifier of C"):
        rsnn.export_hls4ml(chip, tmp_path / "my-net")
    with pytest.raises(TypeError, match=r"keras_ratesnn\.integer"):
        rsnn.export_hls4ml(chip.plan, tmp_path / "net")
