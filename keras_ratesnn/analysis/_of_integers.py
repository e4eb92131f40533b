"""The operations of networks of integers, counted as those of other models."""

import math
from typing import Any

import numpy as np

from keras_ratesnn.integers import IntegerModel


def operations(model: IntegerModel, outputs: dict[str, np.ndarray], x: np.ndarray) -> list[tuple[str, Any]]:
    """The layers with weights and their operations for a sample, a mean over the batch.

    An input U counts as U spikes. A layer whose input is the same at every step takes its multiply-adds once.

    Args:
        model: An `IntegerModel`.
        outputs: What all layers give, see `IntegerModel.layer_outputs`.
        x: The inputs.

    Returns:
        List of pairs of a name, and `(dense, static, synaptic operations, multiply-adds, accumulates)`, as in
        `keras_ratesnn.analysis.energy.Counted`.
    """
    plan, temporal = model.plan, x.ndim == len(model.plan.input_shape) + 2
    frames = np.moveaxis(x, -len(plan.input_shape), -1) if plan.channels_first else x
    found: list[tuple[str, Any]] = []
    for layer in plan.layers:
        kernel = plan.constants.get(f"w/{layer.name}")
        if kernel is None:
            continue
        places = math.prod(layer.shape[:-1])
        dense = places * kernel.size
        if layer.static and not temporal:
            found.append((layer.name, (dense, True, 0.0, dense, 0.0)))
            continue
        inputs = frames if layer.sources[0] == "input" else outputs[layer.sources[0]]
        active = float(_fed(layer, kernel, inputs)) / len(x)
        found.append((layer.name, (dense, False, active, 0.0, active)))
    return found


def _fed(layer, kernel, inputs):
    """How many weights inputs are added through; the padding of a convolution has none."""
    rows = kernel.shape[-1]
    if layer.kind == "dense":
        return inputs.sum(dtype="int64") * rows
    over_samples = inputs.sum((0, 1), dtype="int64").sum(-1)
    padded = np.pad(over_samples, layer.facts["pad"])
    down, across = layer.facts["stride"]
    (height, width), total = layer.shape[:2], 0
    for y in range(kernel.shape[0]):
        for x in range(kernel.shape[1]):
            total += padded[y : y + (height - 1) * down + 1 : down, x : x + (width - 1) * across + 1 : across].sum()
    return total * rows
