r"""Calibration: converts a trained network so that its neurons approximate the
activations they replace.

Let a be the output of an activation and θ a percentile of its positive values. Neurons
with threshold τ, between two fixed scales, replace it:

    I = D x τ/θ + (τ/2 - v_0)/T   s_t = spikes of the input current I   output θ s_t / D

where D is the most spikes in a step, 1 but for integer spikes. First for D = 1.

A neuron without a leak, with soft reset, whose membrane starts at v_0, spikes
floor((v_0 + T I)/τ) times in T steps, clipped to the range from 0 to T. Its mean output
is

    (θ/T) · clip(floor(T x/θ + 1/2), 0, T)

which is relu(x), rounded to a multiple of θ/T and clipped at θ: in the units of x, the
threshold of the neuron is θ. A membrane that starts at v_0 = τ/2 turns truncation into
rounding; what another v_0 lacks is spread over the T steps, which gives as many spikes
for a constant x, but later ones: layers after it see less of them. All weights keep
their values, because the following layers see activations in the original units. The
derivative of a rate with respect to its input is as large as that of the activation for
any θ, because the surrogate sees the membrane in units of τ. Neurons of integer spikes
have T D levels, and no τ/2, since they round by themselves. `_mean_shifts` adds to the
current what clipping, and spikes that come late or unevenly, take away on average.

Sources: Diehl et al., "Fast-Classifying, High-Accuracy Spiking Deep Networks Through
Weight and Threshold Balancing", IJCNN 2015; Rueckauer et al., "Conversion of
Continuous-Valued Deep Networks to Efficient Event-Driven Networks for Image
Classification", Frontiers in Neuroscience 2017 (the percentile); Deng and Gu, "Optimal
Conversion of Conventional Artificial Neural Networks to Spiking Neural Networks", ICLR
2021 (the shift); Bu et al., "Optimized Potential Initialization for Low-latency Spiking
Neural Networks", AAAI 2022 (the membrane).
"""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_ratesnn import _graph
from keras_ratesnn._core import checks, keras_internals, progress, time_axis
from keras_ratesnn._core.backend import engine

_LARGEST_HALF = float(np.finfo("float16").max)


@dataclasses.dataclass
class Measured:
    """The measurements of an activation in calibration.

    Args:
        threshold: Float θ, in the units of the activation, or `None` if it was never
            positive.
        mean: Float, the mean of its positive part for the first samples, without rows
            that are masked.
        calls: Integer, how often it is called in the network.
    """

    threshold: float | None = None
    mean: float = 0.0
    calls: int = 0


def measure(
    functional, operations, tensors, percentile, samples, inside=None, verbose=False
):
    """Measures activations.

    Args:
        functional: A Functional model.
        operations: Collection of its operations.
        tensors: List of tensors, a batch of its inputs, see `checked_tensors`.
        percentile: Float in (0, 100]. A threshold is this percentile of the positive
            outputs, the largest if an operation is called several times.
        samples: Integer, the number of samples for means.
        inside: As in `keras_ratesnn._graph.whole_of`. Defaults to `None`.
        verbose: As in `progress.checked`: whether a progress bar is drawn. Defaults to
            `False`.

    Returns:
        Dict of operations to `Measured`.

    Raises:
        ValueError: If activations are NaN or infinite.
    """
    found = {operation: Measured() for operation in operations}
    bar = keras.utils.Progbar(
        len(found), verbose=progress.checked(verbose), unit_name="activation"
    )

    def without_spikes(call):
        operation = call.operation
        outputs = operation(*call.args, **call.kwargs)
        if operation in found:
            measured, mask = found[operation], keras_internals.row_mask(outputs)
            # Neurons do not spike where rows are masked.
            values = ops.convert_to_numpy(
                time_axis.zero_unless(mask, ops.cast(outputs, "float32"))
            )
            if not np.isfinite(values).all():
                raise ValueError(
                    "`calibrate` must give finite activations. Received: data for "
                    f"which the output of {operation.name!r} is NaN or infinite. Check "
                    "the data and the weights of the model."
                )
            if (values > 0).any():
                threshold = float(np.percentile(values[values > 0], percentile))
                measured.threshold = max(threshold, measured.threshold or 0.0)
            share = (
                1.0
                if mask is None
                else float(ops.mean(ops.cast(mask[:samples], "float32")))
            )
            measured.mean = float(
                np.maximum(values[:samples], 0).mean(dtype="float64")
            ) / (share or 1.0)
            measured.calls += 1
            if measured.calls == 1:
                bar.add(1)
        return outputs

    with engine.no_gradient():
        _graph.whole_of(functional, inside).run(tensors, without_spikes, training=False)
    return found


def checked_tensors(functional, data):
    """The data as a flat list of tensors in the order of the network's inputs.

    Raises:
        TypeError: If `data` are not arrays of numbers.
        ValueError: If they have the wrong shape.
    """
    for leaf in keras.tree.flatten(data):
        if (
            isinstance(leaf, keras.KerasTensor)
            or not hasattr(leaf, "shape")
            or not checks.holds_numbers(leaf)
        ):
            raise TypeError(
                f"{_WANTED} Received: {leaf!r} of type {type(leaf).__name__}."
            )
    try:
        arrays = _graph.match_inputs(functional, data)
    except ValueError as error:
        raise ValueError(f"{_WANTED} {error}") from error
    for array, wanted in zip(arrays, functional.inputs, strict=True):
        shape, static = tuple(array.shape), tuple(wanted.shape[1:])
        if not shape or not shape[0] or not checks.fits(shape[1:], static):
            raise ValueError(
                f"{_WANTED} Here (batch, *{static}). Received: shape {shape}."
            )
    return [
        ops.convert_to_tensor(array, dtype=wanted.dtype)
        for array, wanted in zip(arrays, functional.inputs, strict=True)
    ]


_WANTED = (
    "`calibrate` must be a batch of inputs of the model, without time: an array, "
    "or a structure of arrays."
)


def between_scales(neuron, threshold, timesteps):
    """Places neurons between the two fixed scales.

    Args:
        neuron: A neuron layer.
        threshold: Float, the threshold θ in the units of the activation that the
            neurons replace.
        timesteps: Integer T.

    Returns:
        List of three layers.
    """
    cell, own = neuron.cell, neuron.cell.threshold
    start = getattr(cell, "initial_membrane", 0.0)
    for name, value in (("threshold", own), ("initial_membrane", start)):
        if not isinstance(value, float):
            raise ValueError(
                "`calibrate` places all neurons of a layer between two scales, which "
                f"needs one {name}. Received: neurons {neuron.name!r} with a {name} "
                f"each. Pass `neuron` with a number as {name}, or leave `calibrate` "
                "out."
            )
    # Up to `levels` spikes are rounded, not truncated.
    wanted = 0.0 if "levels" in cell.fixed_arguments else own / 2
    # A custom cell starts at rest.
    shift = (wanted - start) / timesteps
    largest, scale = cell.levels * cell.spike_size, cell.levels * own / threshold
    # What float16 cannot hold would be infinite.
    dtype = (
        neuron.dtype_policy
        if scale < _LARGEST_HALF
        else time_axis.accumulation_dtype(neuron.compute_dtype)
    )
    return [
        keras.layers.Rescaling(
            scale, shift, dtype=dtype, name=f"{neuron.name}_current"
        ),
        neuron,
        keras.layers.Rescaling(
            threshold / largest, dtype=neuron.dtype_policy, name=f"{neuron.name}_output"
        ),
    ]
