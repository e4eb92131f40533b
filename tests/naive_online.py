"""SLTT and OTTT of a small network, step by step in NumPy: slow, but obviously
correct."""

import numpy as np


def gradients(weights, frames, targets, decay, threshold=1.0, alpha=4.0, traces=False):
    """The gradients of ½ Σ (mean output − target)² / batch of Dense, LIF, Dense, LIF,
    Dense.

    Args:
        weights: List of arrays: kernel and bias of each Dense layer.
        frames: Array `(T, batch, features)`.
        targets: Array `(batch, classes)`.
        decay: Float λ.
        threshold: Float θ. Defaults to `1.0`.
        alpha: Float, the slope of the sigmoid surrogate. Defaults to `4.0`.
        traces: Boolean, whether weight gradients use the traces of presynaptic spikes:
            OTTT instead of SLTT. Defaults to `False`.

    Returns:
        List of arrays in the order of `weights`.
    """
    kernels, biases = weights[::2], weights[1::2]
    membranes = [0.0, 0.0]
    seen = [0.0, 0.0]
    steps = []
    for frame in frames:
        inputs, distances, spikes = [frame], [], frame
        for layer in range(2):
            membrane = (
                decay * membranes[layer] + spikes @ kernels[layer] + biases[layer]
            )
            spikes = (membrane >= threshold).astype("float64")
            membranes[layer] = membrane - threshold * spikes
            distances.append(membrane - threshold)
            seen[layer] = decay * seen[layer] + spikes if traces else spikes
            inputs.append(seen[layer])
        steps.append((inputs, distances, spikes @ kernels[2] + biases[2]))

    mean = np.mean([output for _, _, output in steps], axis=0)
    error = (mean - targets) / len(targets) / len(steps)
    found = [np.zeros_like(weight) for weight in weights]
    for inputs, distances, _ in steps:
        delta = error
        for layer in (2, 1, 0):
            found[2 * layer] += inputs[layer].T @ delta
            found[2 * layer + 1] += delta.sum(axis=0)
            if layer:
                sigmoid = 1.0 / (1.0 + np.exp(-alpha * distances[layer - 1]))
                delta = (delta @ kernels[layer].T) * alpha * sigmoid * (1.0 - sigmoid)
    return found
