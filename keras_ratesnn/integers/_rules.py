"""How each kind of node is compiled: a function of the compiler, the node and the
signals of its inputs.

It adds layers and constants of integers, and returns the signal of the node.
"""

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from keras_ratesnn._core.convolutions import without_dilation
from keras_ratesnn._lowered import nodes
from keras_ratesnn.integers import _membranes, _signals
from keras_ratesnn.integers._refusals import (
    REFUSALS,
    refused,
)
from keras_ratesnn.integers._report import LayerReport
from keras_ratesnn.integers._signals import Current, Term, Units
from keras_ratesnn.integers._windows import counts_of, least_common_multiple

DECAY_BITS = 8
"""A decay is m / 2^k, with this k or more."""

_CLOSE, _TOO_FAR = 1 / 32, 1 / 4
"""Errors of a leak 1 − λ, as parts of it: k grows until the leak is close; one that is
too far is refused."""


def compile_node(compiler, node):
    """The `Units` or `Current` of a node.

    Raises:
        ValueError: If integers cannot compute it; the message names its layer.
    """
    signals = [compiler.signal_of(wire) for wire in node.inputs]
    return _RULES[type(node)](compiler, node, *signals)


def _affine(compiler, node, signal):
    if isinstance(signal, Current):
        raise refused(
            node.layer,
            "its input is a current, and weights need spikes or counts. Put neurons "
            "there, or fold it into the layer before.",
        )
    if not node.window:
        return compiler.products(node, signal, "dense")
    facts: dict[str, Any] = {"stride": list(node.stride), "pad": _pad(node)}
    depthwise = node.groups > 1 and node.kernel.shape[-2] == 1
    # What a count of operations must know: the kernel gets zeros between its taps and
    # between its groups.
    if max(node.dilation) > 1:
        facts["dilation"] = list(node.dilation)
    if node.groups > 1 and not depthwise:
        facts["groups"] = node.groups
    if signal.offset and np.any(node.padding):
        facts["pad_value"] = _zero_of(node.layer, signal)
    if depthwise:
        expand = functools.partial(_depthwise_kernel, node)
        return compiler.products(node, signal, "depthwise", expand, **facts)
    expand = functools.partial(_dense_kernel, node)
    return compiler.products(node, signal, "conv", expand, **facts)


def _pad(node):
    return [list(zeros) for zeros in node.padding]


def _zero_of(layer, signal):
    """The integer that stands for 0."""
    zero = -signal.offset / signal.unit
    if abs(zero - round(zero)) > 1e-4 or not 0 <= round(zero) <= signal.top:
        raise refused(
            layer,
            "its padding is 0, which no integer of its input stands for: "
            f"{signal.unit:.6g} · U + {signal.offset:.6g}. Use an offset of the "
            "Rescaling layer that is a multiple of its scale, or padding='valid'.",
        )
    return round(zero)


def _depthwise_kernel(node, kernel):
    """The kernel `(height, width, inputs, multiplier)`, without dilation."""
    *size, _, outputs = kernel.shape
    kernel = kernel.reshape(*size, node.groups, outputs // node.groups)
    return _without_dilation(node, kernel)


def _dense_kernel(node, kernel):
    """The kernel with zeros between groups, without dilation."""
    *size, inputs, outputs = kernel.shape
    whole = np.zeros((*size, inputs * node.groups, outputs), kernel.dtype)
    wide = outputs // node.groups
    for group in range(node.groups):
        rows = slice(group * inputs, (group + 1) * inputs)
        columns = slice(group * wide, (group + 1) * wide)
        whole[..., rows, columns] = kernel[..., columns]
    return _without_dilation(node, whole)


def _without_dilation(node, kernel):
    for axis, dilation in enumerate(node.dilation):
        kernel = without_dilation(kernel, axis, dilation)
    return kernel


def _flatten(compiler, node, signal):
    before, layer = node.before, node.layer
    is_of_pooling = before.layer is layer
    if is_of_pooling and before.how == "mean":
        # The layer of the sum has one axis already.
        return signal
    suffix = "_flat" if is_of_pooling else ""
    if isinstance(signal, Units):
        name = compiler.add(layer, "flatten", [signal.name], suffix)
        return dataclasses.replace(signal, name=name)
    term = _with_positive_unit(compiler, layer, signal)
    times = node.shape[0] // before.shape[-1]
    name = compiler.add(layer, "flatten", [term.name], suffix)
    flat = Term(name, np.tile(term.unit, times), np.tile(term.bound, times))
    return dataclasses.replace(signal, terms=(flat,), bias=np.tile(signal.bias, times))


def _with_positive_unit(compiler, layer, signal):
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


def _pool(compiler, node, signal):
    stride = [1, 1] if node.whole else list(node.stride)
    facts = {"size": list(node.window), "stride": stride, "pad": _pad(node)}
    if node.how == "mean":
        return _mean(compiler, node, signal, facts)
    return _largest(compiler, node.layer, signal, facts)


def _mean(compiler, node, signal, facts):
    layer = node.layer
    if isinstance(signal, Current):
        raise refused(
            layer,
            "it takes averages of currents. Put it after neurons, or before the "
            "weights.",
        )
    if node.whole and not layer.keepdims:
        count = math.prod(node.window)
        name = compiler.add(layer, "global_sum", [signal.name])
    else:
        count = least_common_multiple(counts_of(node.before.shape, facts))
        if signal.top * count >= 2**31:
            raise refused(
                layer,
                "sums over windows of so many sizes do not fit in 32 bits. Pool "
                "without padding.",
            )
        name = compiler.add(layer, "sum_pool", [signal.name], **facts)
    return dataclasses.replace(
        signal, name=name, top=signal.top * count, unit=signal.unit / count
    )


def _largest(compiler, layer, signal, facts):
    if signal.averaged:
        raise refused(
            layer, "it takes the largest mean over time. Put it before the TimeMean."
        )
    if isinstance(signal, Units):
        name = compiler.add(layer, "max_pool", [signal.name], **facts)
        return dataclasses.replace(signal, name=name)
    term = _with_positive_unit(compiler, layer, signal)
    name = compiler.add(layer, "max_pool", [term.name], **facts)
    term = dataclasses.replace(term, name=name, kernel=None)
    return dataclasses.replace(signal, terms=(term,))


def _add(compiler, node, *signals):
    if any(isinstance(signal, Current) for signal in signals):
        currents = [signal.as_current(node.shape[-1]) for signal in signals]
        return _signals.sum_of_currents(currents)
    unit, factors = _signals.common_unit([signal.unit for signal in signals])
    facts = {} if set(factors) == {1} else {"factors": factors}
    name = compiler.add(node.layer, "add", [signal.name for signal in signals], **facts)
    pairs = zip(factors, signals, strict=True)
    top = sum(factor * signal.top for factor, signal in pairs)
    offset = sum(signal.offset for signal in signals)
    return dataclasses.replace(signals[0], name=name, top=top, unit=unit, offset=offset)


def _time_mean(compiler, node, signal):
    return dataclasses.replace(signal, averaged=True)


def _readout(compiler, node, signal):
    raise refused(
        node.layer,
        "a leaky readout does not add up logits. Let the network end in the layer "
        "before it.",
    )


def _neurons(compiler, node, signal):
    _check_neurons(node)
    current, decay = signal.as_current(node.shape[-1]), _decay(node)
    if node.decay_input:
        current = current.scaled(1.0 - decay, 0.0)
    membranes, shift, multipliers = _membranes_of(compiler, node, current)
    k = _decay_bits(decay, compiler.bits)
    if np.any(_error(decay, k) > _TOO_FAR * (1.0 - decay)):
        raise refused(
            node.layer,
            f"beside membranes of {compiler.bits} bits a decay has {k}, too few for "
            f"the leak of decay={np.max(decay):.6g}. Pass fewer membrane_bits, down to "
            "16, or train it with a faster decay.",
        )
    hard = node.reset == "hard"
    resets_elsewhere = hard and membranes.v_reset.any()
    facts = {
        **shift,
        "decay_m": np.rint(decay * 2**k).astype("int64").tolist(),
        "decay_k": k,
        "membrane_bits": compiler.bits,
        "levels": node.levels,
        "hard": hard,
        "v_reset": membranes.v_reset.tolist() if resets_elsewhere else 0,
    }
    if node.reset_delay:
        facts["reset_delay"] = True
    sources = [term.name for term in current.terms]
    name = compiler.add(node.layer, "neurons", sources, **facts)
    for key in ("theta", "bias", "v0"):
        values = getattr(membranes, key)
        compiler.constants[f"{key}/{name}"] = values.astype("int32")
    for source, factors in zip(sources, multipliers, strict=False):
        compiler.constants[f"multiplier/{name}/{source}"] = factors
    compiler.rows.append(_report_of(name, facts, membranes, compiler.bits))
    return Units(name, max(1, node.levels), node.spike_size)


def _check_neurons(node):
    """Raises ValueError for neurons that integers do not have."""
    layer = node.layer
    if node.feedback is not None:
        raise REFUSALS.without_rule(layer)
    for name in ("threshold", "v_reset", "initial_membrane"):
        if not isinstance(getattr(node, name), float):
            raise refused(
                layer,
                f"its neurons have a {name} each, and integers one for a layer. Pass a "
                "number.",
            )
    if getattr(node.cell, "round_half_up", False):
        raise refused(
            layer,
            "it rounds halves up, and integers to even. Train with "
            "round_half_up=False.",
        )
    if getattr(layer, "stabilizer", None) is not None and layer.trainable:
        raise refused(
            layer,
            "its threshold follows the membranes in training. Set trainable=False on "
            "it, which fixes it.",
        )


def _decay(node):
    """λ, a number or one for each channel."""
    if not np.ndim(node.decay):
        return np.asarray(node.decay)
    rows = node.decay.reshape(-1, node.shape[-1])
    if (rows != rows[0]).any():
        raise refused(
            node.layer,
            "its neurons have a decay each, and integers one for a channel. Pass as "
            "many as there are channels.",
        )
    return rows[0]


def _decay_bits(decay, membrane_bits):
    """The least k with which decays are exact, as `quantize_aware` makes them, or else
    close; but products with membranes must fit in 32 bits."""
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


def _membranes_of(compiler, node, current):
    """The constants of neurons, the facts of their shift, and the multipliers of
    several currents, if they are needed."""
    layer, terms = node.layer, current.terms

    def membranes_for(unit, bound):
        choice = _membranes.choose(
            unit,
            current.bias,
            bound,
            node.threshold,
            node.initial_membrane,
            node.v_reset,
            node.levels,
            compiler.bits,
        )
        return _enough(layer, choice, compiler.bits)

    term = terms[0]
    if len(terms) == 1:
        membranes = membranes_for(np.abs(term.unit), term.bound)
        factors = np.where(membranes.silent, 0, np.sign(term.unit))
        if compiler.change_signs(term, factors):
            return membranes, {"f": membranes.f}, ()
    units = [term.unit for term in terms]
    bounds = [term.bound for term in terms]
    common = np.max(np.abs(units), axis=0)
    bound = 0.0
    for term in terms:
        ratio = np.zeros(len(common))
        np.divide(np.abs(term.unit), common, out=ratio, where=common > 0)
        bound = bound + ratio * term.bound
    membranes = membranes_for(common, bound)
    multiplied = _membranes.multipliers(units, bounds, membranes)
    if multiplied is None:
        raise refused(
            layer,
            "the currents that it adds are too large for exact factors. Give them "
            "fewer inputs.",
        )
    multipliers, shift = multiplied
    return membranes, {"shift": shift}, multipliers


def _enough(layer, choice, bits):
    if not isinstance(choice, int):
        return choice
    remedy = f"Pass membrane_bits={choice}."
    if choice > _membranes.MOST_BITS:
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


_RULES: dict[type, Any] = {
    nodes.AffineNode: _affine,
    nodes.PoolNode: _pool,
    nodes.FlattenNode: _flatten,
    nodes.AddNode: _add,
    nodes.NeuronNode: _neurons,
    nodes.ReadoutNode: _readout,
    nodes.TimeMeanNode: _time_mean,
}
"""How each kind of node is compiled."""
