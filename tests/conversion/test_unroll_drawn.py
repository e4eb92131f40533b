"""Networks drawn from a seed, unrolled: every layer of the library, and the layers of
Keras, in some order."""

import keras
import numpy as np
import pytest
from drawn_networks import LAST, OF_KERAS, OF_LIBRARY, PUBLIC, T, draw
from helpers import to_numpy

import keras_ratesnn as rsnn
from keras_ratesnn.layer_kinds.keras_layers import table

REFUSED = {
    "BernoulliEncoder": "depends on the time step",
    "Encoder": "depends on the time step",
    "LatencyEncoder": "depends on the time step",
    "PSN": "depend on inputs of later steps",
    "PSNCell": "depend on inputs of later steps",
    "TemporalEffectiveBatchNormalization": "depends on the time step",
}

LAYERS = {name for name in OF_LIBRARY if not name.endswith("Cell")}


def networks_of(pieces, seed=0, size=5, marks=()):
    """The names of pieces that can be unrolled, in parts, in the order of a seed; what
    ends time comes last in its part."""
    names = sorted(set(pieces) - {*REFUSED, *LAST})
    names = np.random.default_rng(seed).permutation(names).tolist()
    parts = [names[start : start + size] for start in range(0, len(names), size)]
    for part, last in zip(parts, sorted({*LAST} & {*pieces}), strict=False):
        part.append(last)
    return [
        pytest.param(part, 100 * seed + number, id="-".join(part), marks=marks)
        for number, part in enumerate(parts)
    ]


def assert_same(actual, expected):
    """Up to rounding, but for one sample, in which a membrane may be within rounding of
    where its integer changes."""
    far = np.abs(actual - expected) > 1e-5 * np.abs(expected).max()
    assert far.any(axis=1).sum() <= 1


def test_every_layer_is_drawn():
    assert set(OF_LIBRARY) == {
        *PUBLIC,
        "spiking_self_attention",
        "token_attention",
    }
    assert set(OF_KERAS) == {layer.__name__ for layer in table()} | {
        "PaddedMaxPooling2D"
    }


CELLS_AND_KERAS = networks_of(
    {*OF_LIBRARY, *OF_KERAS} - LAYERS, seed=1, marks=pytest.mark.runs_once
)


@pytest.mark.parametrize(("names", "seed"), [*networks_of(LAYERS), *CELLS_AND_KERAS])
def test_a_drawn_network_is_the_same_unrolled(names, seed):
    """Without time, with frames, and step by step."""
    keras.utils.set_random_seed(seed)
    model = rsnn.SpikingModel(draw(names, seed), T, "bptt")
    binary = rsnn.deploy.unroll(model)
    shape = (8, T, *model.network.inputs[0].shape[1:])
    frames = np.random.default_rng(seed).normal(size=shape).astype("float32")
    for x in (frames[:, 0], frames):
        expected = to_numpy(model(x))
        assert expected.std() > 0.01
        assert_same(to_numpy(binary(x)), expected)
    for _ in range(2):
        for t in range(T):
            steps = binary.step(frames[:, t]), model.step(frames[:, t])
            assert_same(*to_numpy(steps))
        binary.reset_state()
        model.reset_state()


@pytest.mark.parametrize("name", REFUSED)
def test_a_layer_that_cannot_be_unrolled_is_refused_by_name(name):
    model = rsnn.SpikingModel(draw([name], 0), T, "bptt")
    with pytest.raises(
        ValueError, match=f"Received: '.*' of type .*: .* {REFUSED[name]}.*[.] [A-Z].*"
    ):
        rsnn.deploy.unroll(model)
