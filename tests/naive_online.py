"""SLTT, OTTT and e-prop of a small network, step by step in NumPy: slow, but obviously
correct."""

import numpy as np
from keras import layers, ops

from keras_ratesnn.layers import LIF


def network_layers():
    """The layers of the network."""
    parts = []
    for width in (8, 5):
        dense = layers.Dense(width, bias_initializer="random_normal")
        parts += [dense, LIF(decay=0.5)]
    return [*parts, layers.Dense(3)]


def squared_error(y, outputs):
    return ops.sum(ops.square(outputs - y)) / (2 * len(y))


def gradients(
    weights,
    frames,
    targets,
    decay,
    threshold=1.0,
    alpha=4.0,
    traced=(),
    traces_of_biases=False,
):
    """The gradients of ½ Σ (mean output − target)² / batch of Dense, LIF, Dense, LIF,
    Dense.

    Args:
        weights: List of arrays: kernel and bias of each Dense layer.
        frames: Array `(T, batch, features)`.
        targets: Array `(batch, classes)`.
        decay: Float λ.
        threshold: Float θ. Defaults to `1.0`.
        alpha: Float, the slope of the sigmoid surrogate. Defaults to `4.0`.
        traced: Tuple of the numbers of the Dense layers whose weight gradients use the
            traces of their inputs. Defaults to none: SLTT.
        traces_of_biases: Boolean, whether the biases of these layers have the trace of
            an input of 1. Defaults to `False`.

    Returns:
        List of arrays in the order of `weights`.
    """
    kernels, biases = weights[::2], weights[1::2]
    membranes = [0.0, 0.0]
    seen = [0.0, 0.0, 0.0]
    ones = 0.0
    steps = []
    for frame in frames:
        signals, distances = [frame], []
        for layer in range(2):
            membrane = (
                decay * membranes[layer] + signals[-1] @ kernels[layer] + biases[layer]
            )
            spikes = (membrane >= threshold).astype("float64")
            membranes[layer] = membrane - threshold * spikes
            distances.append(membrane - threshold)
            signals.append(spikes)
        for layer in range(3):
            before = decay * seen[layer] if layer in traced else 0.0
            seen[layer] = before + signals[layer]
        ones = decay * ones + 1.0 if traces_of_biases else 1.0
        steps.append((list(seen), ones, distances, spikes @ kernels[2] + biases[2]))

    mean = np.mean([output for *_, output in steps], axis=0)
    error = (mean - targets) / len(targets) / len(steps)
    found = [np.zeros_like(weight) for weight in weights]
    for inputs, ones, distances, _ in steps:
        delta = error
        for layer in (2, 1, 0):
            found[2 * layer] += inputs[layer].T @ delta
            share = ones if layer in traced else 1.0
            found[2 * layer + 1] += share * delta.sum(axis=0)
            if layer:
                sigmoid = 1.0 / (1.0 + np.exp(-alpha * distances[layer - 1]))
                delta = (delta @ kernels[layer].T) * alpha * sigmoid * (1.0 - sigmoid)
    return found
