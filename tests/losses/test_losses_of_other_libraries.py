"""Losses of snnTorch and SpikingJelly are what the migration pages say, of the same
spikes and membranes."""

import keras
import numpy as np
import pytest

import keras_ratesnn as rsnn

T, CLASSES, NEURONS = 7, 5, 3
RANDOM = np.random.default_rng(0)
SPIKES = (RANDOM.random((16, T, CLASSES * NEURONS)) < 0.4).astype("float32")
LATER = 0.9 ** np.maximum(np.subtract.outer(range(T), range(T)), 0) * np.tri(T)
MEMBRANES = np.einsum("tj,bjc->btc", LATER, SPIKES[..., :CLASSES]).astype("float32")
LABELS = RANDOM.integers(0, CLASSES, 16)
CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
MSE = keras.losses.MeanSquaredError()


def labels_of(correct, incorrect):
    return np.where(np.eye(CLASSES)[LABELS] == 1, correct, incorrect).astype("float32")


def mean_of_steps(layers, spikes=SPIKES[..., :CLASSES]):
    """What a model predicts that has these spikes, after other layers."""
    inputs = keras.Input(spikes.shape[2:])
    x = rsnn.layers.IF()(inputs)
    for layer in layers:
        x = layer(x)
    return rsnn.SpikingModel(keras.Model(inputs, x), timesteps=T).predict(
        spikes, verbose=0
    )


def pooled():
    of_class = keras.layers.GlobalAveragePooling1D(data_format="channels_first")
    return [keras.layers.Reshape((CLASSES, NEURONS)), of_class]


# A loss of snnTorch, its arguments, what it is given, and the same here.
CASES = [
    (
        "ce_count_loss",
        {},
        SPIKES[..., :CLASSES],
        lambda: CROSSENTROPY(LABELS, mean_of_steps([keras.layers.Rescaling(T)])),
    ),
    (
        *("ce_count_loss", {"population_code": True, "num_classes": CLASSES}, SPIKES),
        lambda: CROSSENTROPY(
            LABELS,
            mean_of_steps([*pooled(), keras.layers.Rescaling(T * NEURONS)], SPIKES),
        ),
    ),
    (
        *(
            "mse_count_loss",
            {"correct_rate": 0.8, "incorrect_rate": 0.2},
            SPIKES[..., :CLASSES],
        ),
        lambda: T * MSE(labels_of(5 / T, 1 / T), mean_of_steps([])),
    ),
    (
        *("mse_membrane_loss", {"on_target": 1.05, "off_target": 0.2}, MEMBRANES),
        lambda: rsnn.losses.TET("mse", weight=0.0)(labels_of(1.05, 0.2), MEMBRANES),
    ),
    (
        "ce_rate_loss",
        {},
        MEMBRANES,
        lambda: rsnn.losses.TET(CROSSENTROPY, weight=0.0)(LABELS, MEMBRANES),
    ),
    (
        *("ce_max_membrane_loss", {}, MEMBRANES),
        lambda: CROSSENTROPY(
            LABELS, mean_of_steps([rsnn.layers.LeakyReadout(0.9, value="max")])
        ),
    ),
]


@pytest.mark.parametrize(
    ("name", "arguments", "given", "here"), CASES, ids=[name for name, *_ in CASES]
)
def test_a_loss_is_that_of_snntorch(name, arguments, given, here):
    import snntorch.functional
    import torch

    loss = getattr(snntorch.functional, name)(**arguments)
    theirs = loss(
        torch.from_numpy(np.moveaxis(given, 0, 1).copy()), torch.from_numpy(LABELS)
    )
    assert float(here()) == pytest.approx(float(theirs), rel=1e-5)


def test_the_loss_of_each_step_is_that_of_spikingjelly():
    import torch
    from spikingjelly.activation_based.functional import (
        temporal_efficient_training_cross_entropy,
    )

    steps = torch.from_numpy(np.moveaxis(MEMBRANES, 0, 1).copy())
    theirs = temporal_efficient_training_cross_entropy(steps, torch.from_numpy(LABELS))
    here = rsnn.losses.TET(CROSSENTROPY, weight=0.0)(LABELS, MEMBRANES)
    assert float(here) == pytest.approx(float(theirs), rel=1e-5)
