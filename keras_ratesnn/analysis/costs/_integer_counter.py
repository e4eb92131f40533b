"""The operations of networks of integers, in the counter of other models."""

import math

import numpy as np

from keras_ratesnn.analysis.costs._counter import Counted, OperationCounter
from keras_ratesnn.integers import IntegerModel


def counter_of_integers(
    model: IntegerModel, outputs: dict[str, np.ndarray], x: np.ndarray
) -> OperationCounter:
    """The counter of a network of integers after a batch.

    A layer whose inputs are numbers beyond 0 and 1 takes multiply-adds, once if they
    are the same at every step.

    Args:
        model: An `IntegerModel`.
        outputs: Dict, the outputs of all layers, see `IntegerModel.layer_outputs`.
        x: The inputs.
    """
    network, temporal = model.network, x.ndim == len(model.network.input_shape) + 2
    counter = OperationCounter(
        np.ones((len(x), model.timesteps), bool), frames=temporal
    )
    counter.levels = max(
        (layer.largest for layer in network.layers if layer.kind == "neurons"),
        default=1,
    )
    shapes = {"input": network.input_shape}
    shapes |= {layer.name: layer.shape for layer in network.layers}
    frames = (
        np.moveaxis(x, -len(network.input_shape), -1) if network.channels_first else x
    )
    inputs = {**outputs, "input": frames}
    sizes: dict[str, float]
    for layer in network.layers:
        kernel = network.constants.get(f"w/{layer.name}")
        if kernel is None:
            continue
        weights = _weights(layer, kernel)
        dense = math.prod(layer.shape[:-1]) * weights
        source = layer.sources[0]
        size = math.prod(shapes[source])
        static = layer.static and not temporal
        runs = 1.0 if static else float(model.timesteps)
        # Frames of 0 and 1 are spikes as they are.
        if static or (source == "input" and x.max() > 1):
            multiply_adds, accumulates, raw = dense * runs, 0.0, True
            sizes = {"values": size}
        else:
            events = inputs[source]
            multiply_adds, raw = 0.0, False
            accumulates = float(_fed(layer, kernel, events) / len(x))
            ever = events != 0 if temporal else events.any(axis=1, keepdims=True)
            ones = np.ones((1, 1, *shapes[source]), "int64")
            sizes = {
                "spikes": size,
                "most_accumulates": float(_fed(layer, kernel, ones)),
                "nonzero": float(_fed(layer, kernel, ever.astype("int64")) / len(x)),
            }
        sizes["weights"] = weights
        traffic = counter.traffic(layer.shape, static, raw, runs, dense, **sizes)
        counted = Counted(dense, multiply_adds, accumulates, traffic)
        counter.add(layer.name, counted)
    return counter


def _weights(layer, kernel):
    """How many weights a kernel has, without the zeros between taps that are dilated
    and between groups."""
    if layer.kind == "dense":
        return kernel.size
    down, across = _dilation(layer)
    return kernel[::down, ::across].size // layer.facts.get("groups", 1)


def _dilation(layer):
    return layer.facts.get("dilation", (1, 1))


def _fed(layer, kernel, inputs):
    """How many weights are added for the inputs; none for the padding of a
    convolution."""
    weights = kernel.shape[-1] // layer.facts.get("groups", 1)
    if layer.kind == "dense":
        return inputs.sum(dtype="int64") * weights
    over_samples = inputs.sum((0, 1), dtype="int64").sum(-1)
    padded = np.pad(over_samples, layer.facts["pad"])
    down, across = layer.facts["stride"]
    (height, width), total = layer.shape[:2], 0
    between_rows, between_columns = _dilation(layer)
    for y in range(0, kernel.shape[0], between_rows):
        for x in range(0, kernel.shape[1], between_columns):
            rows_of_tap = slice(y, y + (height - 1) * down + 1, down)
            columns_of_tap = slice(x, x + (width - 1) * across + 1, across)
            total += padded[rows_of_tap, columns_of_tap].sum()
    return total * weights
