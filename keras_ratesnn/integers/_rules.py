"""How each kind of layer is compiled: a function of the compiler, the layer and the
signals of its inputs.

It adds layers and constants of integers, and returns the signal of the layer's output.
"""

import dataclasses
import functools
import math
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_ratesnn._core import keras_internals
from keras_ratesnn._core.convolutions import padding_of, without_dilation
from keras_ratesnn.integers import _membranes, _refusals, _signals
from keras_ratesnn.integers._refusals import refused
from keras_ratesnn.integers._report import LayerReport
from keras_ratesnn.integers._signals import NO_PADDING, Current, Term, Units
from keras_ratesnn.integers._windows import counts_of, least_common_multiple, places_of
from keras_ratesnn.layer_kinds import NEURON, OPERATION, kind_of
from keras_ratesnn.layers import (
    IFCell,
    ILIFCell,
    LIFCell,
    ParametricLIFCell,
    TimeMean,
    WSConv2D,
    WSDense,
)
from keras_ratesnn.layers.quantized import QuantizedKernels

DECAY_BITS = 8
"""A decay is m / 2^k, with this k or more."""

_CLOSE, _TOO_FAR = 1 / 32, 1 / 4
"""Errors of a leak 1 − λ, as parts of it: k is larger for one that is not close."""


def _class_of(layer):
    """The class by which a layer is compiled; that of a layer with quantised kernels is
    that without them."""
    return layer.base if isinstance(layer, QuantizedKernels) else type(layer)


def rule_of(layer):
    """The function `(compiler, layer, signals) -> signal` that compiles a layer.

    Raises:
        ValueError: If there is none; the message names the layer.
    """
    if getattr(layer, "activation", None) not in (None, keras.activations.linear):
        raise refused(layer, _refusals.OF_ACTIVATIONS)
    if getattr(layer, "quantization_mode", None):
        raise refused(
            layer,
            "its weights are quantized already. Pass the model before `quantize`.",
        )
    found = _RULES.get(_class_of(layer))
    if found is not None:
        return found
    kind = kind_of(layer)
    if kind.role == NEURON:
        return _neurons
    if kind.normalization is not None:
        return _normalization
    if keras_internals.name_of_node(type(layer)) == "Add":
        return _add
    if kind.role != OPERATION:
        raise refused(layer, _refusals.FREE_REASONS.get(kind.role, _refusals.OF_OTHERS))
    raise refused(
        layer, _refusals.OF_ACTIVATIONS if kind.activation else _refusals.OF_OTHERS
    )


def _only(layer, signals):
    if len(signals) != 1:
        raise refused(
            layer, "it takes several inputs, or a mask. Use a layer of one input."
        )
    return signals[0]


def _units(layer, signals, padding=False):
    signal = _only(layer, signals)
    if isinstance(signal, Current):
        raise refused(layer, _refusals.OF_CURRENTS)
    if signal.padding != NO_PADDING and not padding:
        raise refused(
            layer,
            "zeros were put around its input. Put ZeroPadding2D directly before a "
            "convolution.",
        )
    return signal


def _kernel(layer):
    if isinstance(layer, QuantizedKernels):
        # In float32; rounded again it has the same integers.
        return np.asarray(ops.convert_to_numpy(layer.used_kernel()))
    standardizes = isinstance(layer, (WSConv2D, WSDense))
    used = (
        layer.standardized_in_full_precision(layer.kernel)
        if standardizes
        else layer.kernel
    )
    return np.asarray(ops.convert_to_numpy(ops.cast(used, "float32")))


def _dense(compiler, layer, signals):
    signal, kernel = _units(layer, signals), _kernel(layer)
    if len(signal.shape) == 3:
        if compiler.channels_first:
            raise refused(
                layer,
                "it mixes the columns of images with channels first. Use a convolution "
                "of 1x1.",
            )
        kernel = kernel[None, None]
        shape, facts = (
            (*signal.shape[:2], layer.units),
            {"stride": [1, 1], "pad": [[0, 0], [0, 0]]},
        )
        return compiler.products(
            layer, signal, kernel, (0, 1, 2), "conv", shape, **facts
        )
    if signal.order is not None:
        kernel = _signals.moved(kernel, signal.order)
    return compiler.products(layer, signal, kernel, (0,), "dense", (layer.units,))


def _convolution(compiler, layer, signals):
    groups = layer.groups

    def expand(integers):
        *size, inputs, outputs = integers.shape
        whole = np.zeros((*size, inputs * groups, outputs), integers.dtype)
        for group in range(groups):
            of_group = slice(group * outputs // groups, (group + 1) * outputs // groups)
            whole[..., group * inputs : (group + 1) * inputs, of_group] = integers[
                ..., of_group
            ]
        return _dense_kernel(layer, whole)

    return _spatial(compiler, layer, signals, (0, 1, 2), "conv", expand)


def _depthwise(compiler, layer, signals):
    return _spatial(
        compiler,
        layer,
        signals,
        (0, 1),
        "depthwise",
        functools.partial(_dense_kernel, layer),
    )


def _spatial(compiler, layer, signals, axis, kind, expand):
    signal, kernel = _units(layer, signals, padding=True), _kernel(layer)
    extents = [
        (size - 1) * step + 1
        for size, step in zip(kernel.shape[:2], layer.dilation_rate, strict=True)
    ]
    pad = _padding(layer, signal.shape, signal.padding, extents)
    facts: dict[str, Any] = {"stride": list(layer.strides), "pad": pad}
    # What a count of operations must know: the kernel gets zeros between its taps and
    # between its groups.
    facts |= (
        {"dilation": list(layer.dilation_rate)} if max(layer.dilation_rate) > 1 else {}
    )
    facts |= {"groups": layer.groups} if kind == "conv" and layer.groups > 1 else {}
    if signal.offset and np.any(pad):
        zero = -signal.offset / signal.unit
        if abs(zero - round(zero)) > 1e-4 or not 0 <= round(zero) <= signal.top:
            raise refused(
                layer,
                "its padding is 0, which no integer of its input stands for: "
                f"{signal.unit:.6g} · U + {signal.offset:.6g}. Use an offset of the "
                "Rescaling layer that is a multiple of its scale, or padding='valid'.",
            )
        facts["pad_value"] = round(zero)
    outputs = kernel.shape[3] * (kernel.shape[2] if kind == "depthwise" else 1)
    shape = (*places_of(signal.shape, extents, facts), outputs)
    return compiler.products(layer, signal, kernel, axis, kind, shape, expand, **facts)


def _dense_kernel(layer, kernel):
    """The kernel without dilation."""
    for axis, dilation in enumerate(layer.dilation_rate):
        kernel = without_dilation(kernel, axis, dilation)
    return kernel


def _padding(layer, shape, padding, extents):
    """Zeros at the sides of an image, those of the layer and those before it."""
    sizes = [
        size + sum(around) for size, around in zip(shape[:2], padding, strict=True)
    ]
    own = padding_of(layer.padding, sizes, extents, layer.strides, (1, 1))
    return [
        [before + zeros[0], after + zeros[1]]
        for (before, after), zeros in zip(padding, own, strict=True)
    ]


def _normalization(compiler, layer, signals):
    signal = _only(layer, signals)
    rule: Any = kind_of(layer).normalization
    if (
        isinstance(signal, Units)
        or rule.scale_and_shift is None
        or rule.step_factors is not None
    ):
        raise refused(layer, _refusals.OF_NORMALIZATION)
    factor, shift = (
        compiler.channels_of(layer, signal, layer.axis, values)
        for values in rule.scale_and_shift(layer)
    )
    return signal.scaled(factor, shift)


def _rescaling(compiler, layer, signals):
    signal = _only(layer, signals)
    scale, offset = (
        np.unique(np.asarray(values, "float64"))
        for values in (layer.scale, layer.offset)
    )
    if len(scale) > 1 or len(offset) > 1 or scale[0] <= 0:
        raise refused(
            layer,
            "it has several scales, or one that is not above 0. Use one scale > 0 for "
            "all channels.",
        )
    if isinstance(signal, Current):
        return signal.scaled(scale[0], offset[0])
    if signal.padding != NO_PADDING and offset[0]:
        raise refused(
            layer, "it moves the zeros of a ZeroPadding2D. Put it before that."
        )
    return dataclasses.replace(
        signal,
        unit=signal.unit * scale[0],
        offset=float(signal.offset * scale[0] + offset[0]),
    )


def _identity(compiler, layer, signals):
    return _only(layer, signals)


def _time_mean(compiler, layer, signals):
    return dataclasses.replace(_only(layer, signals), averaged=True)


def _flatten(compiler, layer, signals):
    signal = _only(layer, signals)
    if isinstance(layer, layers.Reshape) and len(layer.target_shape) != 1:
        if (
            compiler.canonical(
                layer.compute_output_shape((None, *compiler.of_keras(signal.shape)))[1:]
            )
            == signal.shape
        ):
            return signal
        raise refused(
            layer, "it moves elements of images. Flatten them, or leave it out."
        )
    if len(signal.shape) == 1:
        return signal
    moves = getattr(layer, "data_format", None) == "channels_first"
    order = _signals.flattened_order(signal.shape, compiler.channels_first, moves)
    shape = (math.prod(signal.shape),)
    if isinstance(signal, Units):
        return dataclasses.replace(
            _units(layer, signals),
            name=compiler.add(layer, "flatten", [signal.name]),
            shape=shape,
            order=order,
        )
    term = _fixed(compiler, layer, signal)
    times = shape[0] // signal.shape[-1]
    name = compiler.add(layer, "flatten", [term.name])
    flat = Term(name, np.tile(term.unit, times), np.tile(term.bound, times))
    return dataclasses.replace(
        signal,
        terms=(flat,),
        shape=shape,
        bias=np.tile(signal.bias, times),
        order=order,
    )


def _fixed(compiler, layer, signal):
    """The only term of a current, with a positive unit."""
    if len(signal.terms) > 1:
        raise refused(layer, "its input is a sum of currents. Put neurons before it.")
    (term,) = signal.terms
    if not compiler.change_signs(term, np.where(term.unit < 0, -1, 1)):
        raise refused(
            layer,
            "a normalisation before it has negative factors, which its other consumers "
            "see, too. Put it after.",
        )
    return dataclasses.replace(term, unit=np.abs(term.unit))


def _global_average(compiler, layer, signals):
    signal = _pooled_units(layer, signals)
    size = list(signal.shape[:2])
    facts = (
        {"size": size, "stride": [1, 1], "pad": [[0, 0], [0, 0]]}
        if layer.keepdims
        else {}
    )
    name = compiler.add(
        layer, "sum_pool" if layer.keepdims else "global_sum", [signal.name], **facts
    )
    shape = (*([1, 1] if layer.keepdims else []), signal.shape[2])
    return dataclasses.replace(
        signal,
        name=name,
        shape=shape,
        top=signal.top * math.prod(size),
        unit=signal.unit / math.prod(size),
    )


def _average_pooling(compiler, layer, signals):
    signal = _pooled_units(layer, signals)
    facts = _window(layer, signal.shape)
    name = compiler.add(layer, "sum_pool", [signal.name], **facts)
    least_common = least_common_multiple(counts_of(signal.shape, facts))
    if signal.top * least_common >= 2**31:
        raise refused(
            layer,
            "sums over windows of so many sizes do not fit in 32 bits. Pool without "
            "padding.",
        )
    shape = (*places_of(signal.shape, layer.pool_size, facts), signal.shape[2])
    return dataclasses.replace(
        signal,
        name=name,
        shape=shape,
        top=signal.top * least_common,
        unit=signal.unit / least_common,
    )


def _pooled_units(layer, signals):
    if isinstance(_only(layer, signals), Current):
        raise refused(
            layer,
            "it takes averages of currents. Put it after neurons, or before the "
            "weights.",
        )
    return _units(layer, signals)


def _window(layer, shape):
    pad = _padding(layer, shape, NO_PADDING, layer.pool_size)
    return {"size": list(layer.pool_size), "stride": list(layer.strides), "pad": pad}


def _max_pooling(compiler, layer, signals):
    signal = _only(layer, signals)
    return _largest(compiler, layer, signal, _window(layer, signal.shape))


def _global_max(compiler, layer, signals):
    signal = _only(layer, signals)
    facts = {"size": list(signal.shape[:2]), "stride": [1, 1], "pad": [[0, 0], [0, 0]]}
    pooled = _largest(compiler, layer, signal, facts)
    if layer.keepdims:
        return pooled
    name, shape = (
        compiler.add(layer, "flatten", [_name_of(pooled)], suffix="_flat"),
        pooled.shape[-1:],
    )
    if isinstance(pooled, Units):
        return dataclasses.replace(pooled, name=name, shape=shape)
    return dataclasses.replace(
        pooled, terms=(dataclasses.replace(pooled.terms[0], name=name),), shape=shape
    )


def _name_of(signal):
    return signal.name if isinstance(signal, Units) else signal.terms[0].name


def _largest(compiler, layer, signal, facts):
    if signal.averaged:
        raise refused(
            layer, "it takes the largest mean over time. Put it before the TimeMean."
        )
    shape = (*places_of(signal.shape, facts["size"], facts), signal.shape[2])
    if isinstance(signal, Units):
        signal = _units(layer, [signal])
        return dataclasses.replace(
            signal,
            name=compiler.add(layer, "max_pool", [signal.name], **facts),
            shape=shape,
        )
    term = _fixed(compiler, layer, signal)
    name = compiler.add(layer, "max_pool", [term.name], **facts)
    return dataclasses.replace(
        signal, terms=(dataclasses.replace(term, name=name, kernel=None),), shape=shape
    )


def _zero_padding(compiler, layer, signals):
    signal = _units(layer, signals, padding=True)
    pad = tuple(
        (before + more[0], after + more[1])
        for (before, after), more in zip(signal.padding, layer.padding, strict=True)
    )
    return dataclasses.replace(signal, padding=pad)


def _add(compiler, layer, signals):
    if len(signals) < 2:
        raise refused(
            layer, "it adds a constant. Use the bias of a layer with weights."
        )
    if (
        len({signal.shape for signal in signals}) > 1
        or len({_order_of(signal) for signal in signals}) > 1
    ):
        raise refused(
            layer, "its inputs have different shapes. Add what has the same shape."
        )
    if any(isinstance(signal, Current) for signal in signals):
        return _signals.sum_of_currents([_current(layer, signal) for signal in signals])
    for signal in signals:
        _units(layer, [signal])
    unit, factors = _signals.common_unit([signal.unit for signal in signals])
    facts = {} if set(factors) == {1} else {"factors": factors}
    name = compiler.add(layer, "add", [signal.name for signal in signals], **facts)
    top = sum(
        factor * signal.top for factor, signal in zip(factors, signals, strict=True)
    )
    offset = sum(signal.offset for signal in signals)
    return dataclasses.replace(signals[0], name=name, top=top, unit=unit, offset=offset)


def _current(layer, signal):
    return _signals.as_current(
        signal if isinstance(signal, Current) else _units(layer, [signal])
    )


def _order_of(signal):
    return None if signal.order is None else tuple(signal.order)


def _neurons(compiler, layer, signals):
    signal, cell = _only(layer, signals), layer.cell
    if type(cell) not in (IFCell, LIFCell, ParametricLIFCell, ILIFCell):
        raise refused(layer, _refusals.FREE_REASONS["neuron"])
    for name in ("threshold", "v_reset", "initial_membrane"):
        if not isinstance(getattr(cell, name, 0.0), float):
            raise refused(
                layer,
                f"its neurons have a {name} each, and integers one for a layer. Pass a "
                "number.",
            )
    if getattr(cell, "round_half_up", False):
        raise refused(
            layer,
            "it rounds halves up, and integers to even. Train with "
            "round_half_up=False.",
        )
    current = _current(layer, signal)
    decay = _decay(compiler, layer, cell, current)
    if getattr(cell, "decay_input", False):
        current = current.scaled(1.0 - decay, 0.0)
    levels = cell.levels if isinstance(cell, ILIFCell) else 0
    membranes, shift, multipliers = _membranes_of(compiler, layer, current, levels)
    k = _decay_bits(decay, compiler.bits)
    if np.any(_error(decay, k) > _TOO_FAR * (1.0 - decay)):
        raise refused(
            layer,
            f"beside membranes of {compiler.bits} bits a decay has {k}, too few for "
            f"the leak of decay={np.max(decay):.6g}. Pass fewer membrane_bits, down to "
            "16, or train it with a faster decay.",
        )
    m = np.rint(decay * 2**k).astype("int64")
    hard = getattr(cell, "reset", "soft") == "hard"
    facts = {
        **shift,
        "decay_m": m.tolist(),
        "decay_k": k,
        "membrane_bits": compiler.bits,
        "levels": levels,
        "hard": hard,
        "v_reset": membranes.v_reset.tolist()
        if hard and membranes.v_reset.any()
        else 0,
    }
    if getattr(cell, "reset_delay", False):
        facts["reset_delay"] = True
    name = compiler.add(
        layer, "neurons", [term.name for term in current.terms], **facts
    )
    for key, values in (
        ("theta", membranes.theta),
        ("bias", membranes.bias),
        ("v0", membranes.v0),
    ):
        compiler.constants[f"{key}/{name}"] = values.astype("int32")
    for term, factors in zip(current.terms, multipliers, strict=False):
        compiler.constants[f"multiplier/{name}/{term.name}"] = factors
    compiler.rows.append(_report_of(name, facts, membranes, compiler.bits))
    return Units(
        name, current.shape, max(1, levels), cell.spike_size, order=current.order
    )


def _decay(compiler, layer, cell, current):
    """λ, a number or one for each channel."""
    decay = np.asarray(ops.convert_to_numpy(cell.effective_decay()), "float64")
    if decay.ndim and (cell.axis is None or decay.size != decay.shape[cell.axis]):
        raise refused(
            layer,
            "its neurons have a decay each, and integers one for a channel. Pass as "
            "many as there are channels.",
        )
    return (
        decay
        if decay.ndim == 0
        else compiler.channels_of(layer, current, cell.axis, decay.reshape(-1))
    )


def _decay_bits(decay, membrane_bits):
    """k, as large that decays are exact, as those that were trained so, or else close.
    Products fit in 32 bits."""
    fitting = range(DECAY_BITS, 33 - membrane_bits)
    close = (
        k
        for most in (0.0, _CLOSE)
        for k in fitting
        if np.all(_error(decay, k) <= most * (1.0 - decay))
    )
    return next(close, fitting[-1])


def _error(decay, k):
    return np.abs(np.rint(decay * 2**k) / 2**k - decay)


def _threshold(layer):
    stabilizer = getattr(layer, "stabilizer", None)
    if stabilizer is None:
        return float(ops.convert_to_numpy(layer.cell.effective_threshold()))
    if layer.trainable:
        raise refused(
            layer,
            "its threshold follows the membranes in training. Set trainable=False on "
            "it, which fixes it.",
        )
    return float(ops.convert_to_numpy(stabilizer.running_threshold.value))


def _membranes_of(compiler, layer, current, levels):
    """The constants of neurons, the facts of their shift, and the multipliers of
    several currents, if they are needed."""
    cell, terms = layer.cell, current.terms
    of_cell = (
        _threshold(layer),
        cell.initial_membrane,
        getattr(cell, "v_reset", 0.0),
        levels,
        compiler.bits,
    )
    term = terms[0]
    if len(terms) == 1:
        membranes = _enough(
            layer,
            _membranes.choose(np.abs(term.unit), current.bias, term.bound, *of_cell),
            compiler.bits,
        )
        factors = np.where(membranes.silent, 0, np.sign(term.unit))
        if compiler.change_signs(term, factors):
            return membranes, {"f": membranes.f}, ()
    common = np.max([np.abs(term.unit) for term in terms], axis=0)
    bounds = [
        np.divide(
            np.abs(term.unit), common, out=np.zeros(len(common)), where=common > 0
        )
        * term.bound
        for term in terms
    ]
    membranes = _enough(
        layer,
        _membranes.choose(common, current.bias, sum(bounds), *of_cell),
        compiler.bits,
    )
    found = _membranes.multipliers(
        [term.unit for term in terms], [term.bound for term in terms], membranes
    )
    if found is None:
        raise refused(
            layer,
            "the currents that it adds are too large for exact factors. Give them "
            "fewer inputs.",
        )
    multipliers, shift = found
    return membranes, {"shift": shift}, multipliers


def _enough(layer, found, bits):
    if not isinstance(found, int):
        return found
    remedy = f"Pass membrane_bits={found}."
    if found > _membranes.MOST_BITS:
        remedy = (
            "More bits would not help: its currents are too unequal beside its "
            "threshold. Normalise them before it."
        )
    raise refused(
        layer,
        f"with membranes of {bits} bits its smallest threshold would be below "
        f"{_membranes.SMALLEST_THRESHOLD}, which rounding changes too much. {remedy}",
    )


def _report_of(name, facts, membranes, bits):
    headroom = (2 ** (bits - 1) - 1) / (membranes.theta.max() * max(1, facts["levels"]))
    return LayerReport(
        name,
        "neurons",
        f=facts.get("f"),
        shift=facts.get("shift"),
        thresholds=(int(membranes.theta.min()), int(membranes.theta.max())),
        headroom=float(headroom),
        silent=int(membranes.silent.sum()),
    )


_IDENTITIES = (
    *(
        layers.Dropout,
        layers.SpatialDropout1D,
        layers.SpatialDropout2D,
        layers.SpatialDropout3D,
        layers.GaussianDropout,
    ),
    *(
        layers.GaussianNoise,
        layers.Identity,
        layers.ActivityRegularization,
        layers.Activation,
    ),
)
_RULES: dict[type, Any] = {
    **dict.fromkeys((layers.Dense, WSDense), _dense),
    **dict.fromkeys((layers.Conv2D, WSConv2D), _convolution),
    layers.DepthwiseConv2D: _depthwise,
    **dict.fromkeys(_IDENTITIES, _identity),
    layers.Rescaling: _rescaling,
    **dict.fromkeys((layers.Flatten, layers.Reshape), _flatten),
    layers.AveragePooling2D: _average_pooling,
    layers.GlobalAveragePooling2D: _global_average,
    layers.MaxPooling2D: _max_pooling,
    layers.GlobalMaxPooling2D: _global_max,
    layers.ZeroPadding2D: _zero_padding,
    layers.Add: _add,
    TimeMean: _time_mean,
}
"""How each class of layers is compiled."""
