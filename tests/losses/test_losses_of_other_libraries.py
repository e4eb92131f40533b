"""Losses of snnTorch and SpikingJelly are what the migration pages say, of the same
spikes and membranes."""

import keras
import numpy as np
import pytest
from helpers import CROSSENTROPY

import keras_ratesnn as rsnn

T, CLASSES, NEURONS = 7, 5, 3
RANDOM = np.random.default_rng(0)
SPIKES = (RANDOM.random((16, T, CLASSES * NEURONS)) < 0.4).astype("float32")
COUNTS = SPIKES[..., :CLASSES]
LATER = 0.9 ** np.maximum(np.subtract.outer(range(T), range(T)), 0) * np.tri(T)
MEMBRANES = np.einsum("tj,bjc->btc", LATER, COUNTS).astype("float32")
LABELS = RANDOM.integers(0, CLASSES, 16)


def targets(correct, incorrect):
    return np.where(np.eye(CLASSES)[LABELS] == 1, correct, incorrect).astype("float32")


def mean_of_steps(*layers, spikes=COUNTS):
    """What a model predicts that has these spikes, after other layers."""
    network = keras.Sequential(
        [keras.Input(spikes.shape[2:]), rsnn.layers.IF(), *layers]
    )
    return rsnn.SpikingModel(network, timesteps=T).predict(spikes, verbose=0)


def population():
    groups = keras.layers.Reshape((CLASSES, NEURONS))
    mean = keras.layers.GlobalAveragePooling1D(data_format="channels_first")
    scale = keras.layers.Rescaling(T * NEURONS)
    return mean_of_steps(groups, mean, scale, spikes=SPIKES)


def snntorch(name, **arguments):
    def loss(outputs, labels):
        import snntorch.functional

        return getattr(snntorch.functional, name)(**arguments)(outputs, labels)

    return loss


def spikingjelly(outputs, labels):
    from spikingjelly.activation_based import functional

    return functional.temporal_efficient_training_cross_entropy(outputs, labels)


@pytest.mark.parametrize(
    ("loss", "outputs", "here"),
    [
        (
            snntorch("ce_count_loss"),
            COUNTS,
            lambda: CROSSENTROPY(LABELS, mean_of_steps(keras.layers.Rescaling(T))),
        ),
        (
            snntorch("ce_count_loss", population_code=True, num_classes=CLASSES),
            SPIKES,
            lambda: CROSSENTROPY(LABELS, population()),
        ),
        (
            snntorch("mse_count_loss", correct_rate=0.8, incorrect_rate=0.2),
            COUNTS,
            lambda: (
                T
                * keras.losses.MeanSquaredError()(
                    targets(5 / T, 1 / T), mean_of_steps()
                )
            ),
        ),
        (
            snntorch("mse_membrane_loss", on_target=1.05, off_target=0.2),
            MEMBRANES,
            lambda: rsnn.losses.TET("mse", 0.0)(targets(1.05, 0.2), MEMBRANES),
        ),
        (
            snntorch("ce_rate_loss"),
            MEMBRANES,
            lambda: rsnn.losses.TET(CROSSENTROPY, 0.0)(LABELS, MEMBRANES),
        ),
        (
            snntorch("ce_max_membrane_loss"),
            MEMBRANES,
            lambda: CROSSENTROPY(
                LABELS, mean_of_steps(rsnn.layers.LeakyReadout(0.9, value="max"))
            ),
        ),
        (
            spikingjelly,
            MEMBRANES,
            lambda: rsnn.losses.TET(CROSSENTROPY, 0.0)(LABELS, MEMBRANES),
        ),
    ],
)
def test_a_loss_is_that_of_another_library(loss, outputs, here):
    import torch

    steps = torch.from_numpy(np.moveaxis(outputs, 0, 1).copy())
    expected = float(loss(steps, torch.from_numpy(LABELS)))
    assert float(here()) == pytest.approx(expected, rel=1e-5)
