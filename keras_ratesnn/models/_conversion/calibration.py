r"""Any Keras network made spiking: neurons in the place of its hidden activations.

Calibration takes over a trained network. Let a be the output of an activation and θ a percentile of its positive values.
Neurons with threshold τ take its place, between two fixed scales:

    I = x τ/θ + τ/(2T)          s_t = spikes of the input current I          output θ s_t

A neuron that does not leak, with soft reset, spikes floor(T I/τ) times in T steps, but never more than T times and never
less than none. Its mean output is

    (θ/T) · clip(floor(T x/θ + 1/2), 0, T)

which is relu(x), rounded to a multiple of θ/T and clipped at θ: the neuron's threshold, in the units of x, is θ. The
summand τ/(2T) turns truncation into rounding; over T steps it does what a membrane that starts at τ/2 does. All weights
keep their values, since what follows sees activations in their old units, and the derivative of a rate by its input is
as large as that of an activation whatever θ is, since the surrogate sees the membrane in units of τ.

Sources: Diehl et al., "Fast-Classifying, High-Accuracy Spiking Deep Networks Through Weight and Threshold Balancing",
IJCNN 2015; Rueckauer et al., "Conversion of Continuous-Valued Deep Networks to Efficient Event-Driven Networks for Image
Classification", Frontiers in Neuroscience 2017 (the percentile); Deng and Gu, "Optimal Conversion of Conventional
Artificial Neural Networks to Spiking Neural Networks", ICLR 2021 (the shift).
"""

import keras
import numpy as np
from keras import ops

from keras_ratesnn import _graph
from keras_ratesnn._core import backend
from keras_ratesnn._input_checks import fits


class _Calibration:
    """A rule by which the network runs without spikes; it looks at what some of its operations put out."""

    def __init__(self, operations, percentile):
        self.operations = operations
        self.percentile = percentile
        self.thresholds = {}

    def __call__(self, call):
        operation = call.operation
        outputs = operation(*call.args, **call.kwargs)
        if operation in self.operations:
            values = ops.convert_to_numpy(ops.cast(outputs, "float32"))
            if not np.isfinite(values).all():
                raise ValueError(
                    f"`calibrate` must give finite activations. Received: data with which {operation.name!r} puts out NaN or "
                    "infinity. Look at the data and at the model's weights."
                )
            if (values > 0).any():
                threshold = float(np.percentile(values[values > 0], self.percentile))
                self.thresholds[operation] = max(threshold, self.thresholds.get(operation, 0.0))
        return outputs


def thresholds(functional, operations, data, percentile):
    """The percentile of each operation's positive outputs, the largest if it is called several times.

    Args:
        functional: A Functional model.
        operations: Collection of its operations.
        data: A batch of inputs, as the model takes them.
        percentile: Float in (0, 100].

    Returns:
        Dict of operations to thresholds; an operation that never puts out a positive value is not in it.

    Raises:
        TypeError: If `data` are no arrays of numbers.
        ValueError: If `data` are of another shape, or give activations that are NaN or infinite.
    """
    rule = _Calibration(operations, percentile)
    tensors = _checked_tensors(functional, data)
    with backend.no_gradient():
        _graph.walk(functional, tensors, rule, training=False)
    return rule.thresholds


def _checked_tensors(functional, data):
    """The data as a flat list of tensors in the order of the network's inputs."""
    for leaf in keras.tree.flatten(data):
        if not ops.is_tensor(leaf) and not (hasattr(leaf, "shape") and np.asarray(leaf).dtype.kind in _NUMBERS):
            raise TypeError(f"{_WANTED} Received: {leaf!r} of type {type(leaf).__name__}.")
    try:
        arrays = _graph.match_inputs(functional, data)
    except ValueError as error:
        raise ValueError(f"{_WANTED} {error}") from error
    for array, wanted in zip(arrays, functional.inputs, strict=True):
        shape, static = tuple(array.shape), tuple(wanted.shape[1:])
        if not shape or not shape[0] or not fits(shape[1:], static):
            raise ValueError(f"{_WANTED} Here (batch, *{static}). Received: shape {shape}.")
    return [ops.convert_to_tensor(array, dtype=wanted.dtype) for array, wanted in zip(arrays, functional.inputs, strict=True)]


_NUMBERS = "biufV"  # The last is bfloat16.
_WANTED = "`calibrate` must be a batch of inputs as the model takes them, without time: an array, or a structure of arrays."


def between_scales(neuron, threshold, timesteps):
    """The neurons between the two fixed scales.

    Args:
        neuron: A neuron layer.
        threshold: Float, the threshold θ in the units of the activation that the neurons replace.
        timesteps: Integer T.

    Returns:
        List of three layers.
    """
    own = neuron.cell.threshold
    return [
        keras.layers.Rescaling(
            own / threshold, own / (2 * timesteps), dtype=neuron.dtype_policy, name=f"{neuron.name}_current"
        ),
        neuron,
        keras.layers.Rescaling(threshold, dtype=neuron.dtype_policy, name=f"{neuron.name}_output"),
    ]
