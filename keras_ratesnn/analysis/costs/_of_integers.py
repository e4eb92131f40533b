"""The operations of networks of integers, counted as those of other models."""

import itertools
import math

import numpy as np

from keras_ratesnn.analysis.costs._counter import Counted, OperationCounter
from keras_ratesnn.analysis.costs.ledger import Traffic
from keras_ratesnn.integers import IntegerModel


def counter_of_integers(
    model: IntegerModel, outputs: dict[str, np.ndarray], x: np.ndarray
) -> OperationCounter:
    """The counter of a network of integers after a batch.

    A layer whose inputs are numbers beyond 0 and 1 takes multiply-adds, once if they
    are the same at every step.

    Args:
        model: An `IntegerModel`.
        outputs: What all layers give, see `IntegerModel.layer_outputs`.
        x: The inputs.
    """
    plan, temporal = model.plan, x.ndim == len(model.plan.input_shape) + 2
    counter = OperationCounter(
        np.ones((len(x), model.timesteps), bool), frames=temporal
    )
    counter.levels = max(
        (layer.largest for layer in plan.layers if layer.kind == "neurons"), default=1
    )
    frames = np.moveaxis(x, -len(plan.input_shape), -1) if plan.channels_first else x
    shapes = {
        "input": plan.input_shape,
        **{layer.name: layer.shape for layer in plan.layers},
    }
    for layer in plan.layers:
        kernel = plan.constants.get(f"w/{layer.name}")
        if kernel is None:
            continue
        weights = _weights(layer, kernel)
        dense = math.prod(layer.shape[:-1]) * weights
        static, of_input = layer.static and not temporal, layer.sources[0] == "input"
        size = math.prod(shapes[layer.sources[0]])
        # Frames of 0 and 1 are spikes as they are.
        of_numbers = static or (of_input and x.max() > 1)
        passes = 1.0 if static else counter.passes
        traffic = Traffic(
            static,
            raw=of_numbers,
            passes=passes,
            runs=1.0 if static else float(model.timesteps),
            most_accumulates=0.0,
            nonzero=dense * passes,
            weights=weights,
            spikes=0.0 if of_numbers else size,
            values=size if of_numbers else 0.0,
            outputs=math.prod(layer.shape),
            kept=model.timesteps - 1.0,
        )
        if of_numbers:
            counter.add(layer.name, Counted(dense, dense * traffic.runs, 0.0, traffic))
            continue
        inputs = frames if of_input else outputs[layer.sources[0]]
        active = _fed(layer, kernel, inputs) / len(x)
        most = _fed(layer, kernel, np.ones((1, 1, *shapes[layer.sources[0]]), "int64"))
        ever = inputs != 0 if temporal else inputs.any(axis=1, keepdims=True)
        nonzero = _fed(layer, kernel, ever.astype("int64")) / len(x)
        traffic = traffic._replace(most_accumulates=float(most), nonzero=float(nonzero))
        counter.add(layer.name, Counted(dense, 0.0, float(active), traffic))
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
    """How many weights inputs are added through; the padding of a convolution has
    none."""
    rows = kernel.shape[-1] // layer.facts.get("groups", 1)
    if layer.kind == "dense":
        return inputs.sum(dtype="int64") * rows
    over_samples = inputs.sum((0, 1), dtype="int64").sum(-1)
    padded = np.pad(over_samples, layer.facts["pad"])
    down, across = layer.facts["stride"]
    (height, width), total = layer.shape[:2], 0
    taps = (
        range(0, size, step)
        for size, step in zip(kernel.shape[:2], _dilation(layer), strict=True)
    )
    for y, x in itertools.product(*taps):
        total += padded[
            y : y + (height - 1) * down + 1 : down,
            x : x + (width - 1) * across + 1 : across,
        ].sum()
    return total * rows
