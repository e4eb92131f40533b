"""The check of sample independence: networks of the library pass, and dependence
between samples and calls is found and named."""

import keras
import numpy as np
import pytest
from helpers import chain
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.layers import LIF, Recurrent
from keras_ratesnn.testing import check_sample_independence

RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.uniform(0.0, 2.0, (3, 6)).astype("float32")
SEQUENCES = RANDOM.uniform(0.0, 2.0, (3, 4, 6)).astype("float32")
PADDED = SEQUENCES.copy()
PADDED[0, 2:] = PADDED[2, 3:] = 0.0


class OwnLayer(layers.Layer):
    def compute_output_shape(self, input_shape):
        return input_shape


class Centred(OwnLayer):
    """Subtracts a mean over the batch."""

    def call(self, inputs):
        return inputs - ops.mean(inputs, axis=0, keepdims=True)


class Keeping(OwnLayer):
    """Neurons whose membranes stay for the next call."""

    def build(self, input_shape):
        self.membrane = self.add_weight(
            shape=(3, *input_shape[1:]), initializer="zeros", trainable=False
        )

    def call(self, inputs):
        membrane = 0.5 * self.membrane + ops.abs(inputs)
        spikes = ops.cast(membrane >= 0.5, membrane.dtype)
        self.membrane.assign(membrane - 0.5 * spikes)
        return spikes


class CountingModel(rsnn.SpikingModel):
    """Counts its calls."""

    calls = 0

    def call(self, inputs, training=None, mask=None):
        self.calls += 1
        return super().call(inputs, training, mask) + self.calls


class ReversingModel(keras.Model):
    """Reverses the batch between two layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = layers.Dense(4), keras.Sequential([layers.Dense(3)])

    def call(self, inputs):
        return self.second(ops.flip(self.first(inputs), axis=0))


def plain(*made):
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(8), *made, layers.Dense(3)], name="plain"
    )


@pytest.mark.parametrize(
    ("step_mode", "policy"), [("multi", "float32"), ("single", "mixed_bfloat16")]
)
def test_spiking_networks_have_no_leaks(step_mode, policy):
    keras.config.set_dtype_policy(policy)
    inputs = {name: keras.Input((6,), name=name) for name in ("one", "other")}
    x = layers.Add()([layers.Dense(5)(part) for part in inputs.values()])
    neurons = Recurrent(LIF(decay=0.9), layers.Dense(5))
    x = layers.Dropout(0.5)(neurons(layers.BatchNormalization()(x)))
    settings = {"return_sequences": step_mode == "multi", "mask_value": 0.0}
    network = keras.Model(inputs, x)
    model = rsnn.SpikingModel(network, 4, step_mode=step_mode, **settings)
    x = {"one": PADDED, "other": SEQUENCES * (PADDED != 0.0)}
    before = ops.convert_to_numpy(model(x))
    check_sample_independence(model, x)
    # The model is as it was.
    assert model.step_mode == step_mode
    assert isinstance(model.gradient, rsnn.gradients.Rate)
    np.testing.assert_array_equal(ops.convert_to_numpy(model(x)), before)


SILENT = LIF(threshold=1e6)


class OfThree(OwnLayer):
    def call(self, inputs):
        return ops.reshape(inputs, (3, 6))


@pytest.mark.parametrize(
    ("build", "x", "finding"),
    [
        (
            lambda: plain(Centred(name="centred")),
            VECTORS,
            "^Layer 'centred' of model 'plain' .*Samples affect each other",
        ),
        (
            lambda: plain(Keeping(name="keeping"), Centred()),
            VECTORS,
            "^Layer 'keeping' .*state between calls",
        ),
        (
            lambda: rsnn.SpikingModel(plain(SILENT, Centred(name="behind")), 2),
            VECTORS,
            "^Layer 'behind'",
        ),
        (
            lambda: keras.Sequential([plain(Centred(name="inner"))]),
            VECTORS,
            "^Layer 'inner'",
        ),
        (
            lambda: chain(layers.Dense(8), lambda x: ops.cumsum(x, axis=0)),
            VECTORS,
            "^Layer 'cumsum'",
        ),
        (
            lambda: ReversingModel(name="reversing"),
            VECTORS,
            "^Model 'reversing' gives a sample other outputs beside copies",
        ),
        (
            lambda: CountingModel(plain(LIF()), 2, name="counting"),
            VECTORS,
            "^Model 'counting' .*It keeps state",
        ),
        (
            lambda: keras.Sequential([keras.Input((6,)), OfThree()], name="of_three"),
            VECTORS,
            "^Model 'of_three' computes a batch of 3 samples, but not one of them",
        ),
    ],
    ids=[
        "mean over the batch",
        "kept membrane",
        "behind silent neurons",
        "nested",
        "function",
        "between layers",
        "subclass",
        "whole batch",
    ],
)
def test_the_first_layer_that_leaks_is_named(build, x, finding):
    with pytest.raises(AssertionError, match=finding):
        check_sample_independence(build(), x)


class OfBatchSize(OwnLayer):
    """Adds an error to a batch of one, as other algorithms round otherwise."""

    def __init__(self, error, **kwargs):
        super().__init__(**kwargs)
        self.error = error

    def call(self, inputs):
        return inputs * (1.0 - self.error) if inputs.shape[0] == 1 else inputs


class AtThreshold(OwnLayer):
    """Spikes of inputs that are at the threshold."""

    def call(self, inputs):
        return ops.cast(inputs >= VECTORS.min(), "float32")


def test_rounding_that_makes_a_neuron_spike_is_no_leak():
    def model(error):
        return chain(OfBatchSize(error, name="rounding"), AtThreshold())

    check_sample_independence(model(1e-6), VECTORS)
    sample = VECTORS[VECTORS.min(axis=1).argmin()][None]
    assert not ops.convert_to_numpy(model(1e-6)(sample)).all()
    with pytest.raises(AssertionError, match=r"^Layer 'rounding' .* in a batch of one"):
        check_sample_independence(model(1e-2), VECTORS)


def torch_model(loop):
    import torch

    class Neurons(torch.nn.Module):
        membrane = 0.0

        def step(self, inputs):
            self.membrane = 0.5 * self.membrane + inputs
            spikes = (self.membrane >= 0.3).float()
            self.membrane = self.membrane - 0.3 * spikes
            return spikes

        def forward(self, inputs):
            if loop == "kept":
                return self.step(inputs)
            self.membrane = 0.0
            # The batch is taken for time, or a first axis is it.
            steps = inputs if loop == "batch" else inputs.unflatten(0, (2, -1))
            return torch.stack([self.step(x) for x in steps]).reshape(inputs.shape)

    class Repeated(torch.nn.Module):
        def forward(self, inputs):
            return inputs.repeat(2, 1)

    class Mean(torch.nn.Module):
        def forward(self, outputs):
            return outputs.unflatten(0, (2, -1)).mean(0)

    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(6, 8),
        torch.nn.ReLU(inplace=True),
        Repeated(),
        Neurons(),
        torch.nn.Linear(8, 3),
        Mean(),
    )
    wrapped = keras.layers.TorchModuleWrapper(
        network, output_shape=(None, 3), name="wrapped"
    )
    return keras.Sequential([keras.Input((6,)), wrapped])


@pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="a torch.nn.Module runs on PyTorch alone"
)
def test_leaks_of_torch_modules_are_found():
    check_sample_independence(torch_model("time"), VECTORS)
    for loop, finding in (
        ("kept", "state between calls"),
        ("batch", "Does it take the batch for time"),
    ):
        with pytest.raises(AssertionError, match=f"^Layer 'wrapped/3' .*{finding}"):
            check_sample_independence(torch_model(loop), VECTORS)


@pytest.mark.runs_once
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (
            VECTORS[:1],
            ValueError,
            r"`x` must be a batch of at least two samples.*Received: x with \[1\] "
            r"samples",
        ),
        (
            np.ones((3, 6)),
            ValueError,
            "`x` must have samples that differ.*3 equal samples",
        ),
        ("data", TypeError, "`x` must be a tensor or an array of numbers"),
    ],
    ids=["one sample", "equal samples", "text"],
)
def test_a_batch_that_shows_no_leak_is_an_error(x, error, message):
    with pytest.raises(error, match=message):
        check_sample_independence(plain(), x)
    with pytest.raises(TypeError, match="`model` must be a Model"):
        check_sample_independence(layers.Dense(2), x)
