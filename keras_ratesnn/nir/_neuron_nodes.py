"""Neuron layers and readouts as nodes, and nodes as these layers."""

import re
import warnings

import numpy as np

from keras_ratesnn import surrogates
from keras_ratesnn._core.names import listed
from keras_ratesnn.layers import IF, LIF, CuBaLIF, LeakyReadout, ParametricLIF
from keras_ratesnn.layers.readout import VALUES
from keras_ratesnn.nir import _continuous_time, _layouts

NODES = ("IF", "LIF", "CubaLIF")
"""The types of the nodes of neurons."""

READOUT_NODES = ("I", "LI", "CubaLI")
"""The types of the nodes of a readout."""

_SURROGATES = {
    surrogate.__name__: surrogate for surrogate in surrogates.BY_NAME.values()
}


class NeuronReader:
    """Makes neuron layers of nodes.

    Args:
        reset: `"soft"`, `"hard"` or `None`, for nodes that do not say it.
        reset_delay: Boolean or `None`, for nodes that do not say it.
        dt: Float, the length of a time step in seconds, or `None`, for nodes that do
            not say it.
        data_format: String, how the network has images.
        dtype: String, the dtype of membranes.
    """

    def __init__(self, reset, reset_delay, dt, data_format, dtype):
        self.reset = reset
        self.reset_delay = reset_delay
        self.dt = dt
        self.data_format = data_format
        self.dtype = dtype
        self.unsaid = []
        self.perhaps_delayed = []

    def layer_of(self, node, signal, name, recurrent):
        """The layer of a node.

        Args:
            node: A `NirNode` of one of the types `NODES`.
            signal: A `NodeOutput`, its input.
            name: String, the name of the layer.
            recurrent: Boolean, whether its outputs come back to it.

        Returns:
            `(layer, decays)`: decays are an array for a `ParametricLIF` that has one
            for each channel, in our order, whose weights must be set; otherwise `None`.
        """
        dt = self._time_step(node)
        if node.type == "IF":
            gain = self._gain(node, "r", None, signal, dt)
            return IF(
                name=name, **self._arguments(node, signal, gain, dt, recurrent)
            ), None
        decay, decay_input, synaptic_decay, gain = self._leak_of(node, signal, dt)
        arguments = {
            "decay_input": decay_input,
            **self._arguments(node, signal, gain, dt, recurrent),
        }
        if node.type == "CubaLIF":
            return CuBaLIF(
                self._decays(decay, signal),
                synaptic_decay=self._decays(synaptic_decay, signal),
                name=name,
                **_learned(node, "learn_decay", "learn_synaptic_decay"),
                **arguments,
            ), None
        per_channel = decay.ndim > 0 or bool(node.metadata.get("per_channel", False))
        said = node.metadata.get(
            "layer", "ParametricLIF" if per_channel and decay.min() > 0.0 else "LIF"
        )
        axis = decays = None
        if said == "ParametricLIF":
            axis, decays = self._by_channel(decay, signal)
        if axis is None:
            return LIF(
                self._decays(decay, signal),
                name=name,
                **_learned(node, "learn_decay"),
                **arguments,
            ), None
        if decay.min() <= 0.0:
            raise node.refused(
                "some of its time constants equal the time step, and ParametricLIF has "
                "no decay of 0."
            )
        decay = _continuous_time.shortest(decay.flat[0], self.dtype)
        return ParametricLIF(
            decay=decay, per_channel=per_channel, axis=axis, name=name, **arguments
        ), decays

    def readout_of(self, node, signal, name):
        """`(layer, scale, offset)`: the layer of a node of one of the types
        `READOUT_NODES`, and what scales its output."""
        dt, value = self._time_step(node), node.metadata.get("value", VALUES[0])
        if value not in VALUES:
            raise node.refused(
                f"its metadata has value={value!r}, which is none of "
                f"{', '.join(map(repr, VALUES))}."
            )
        if node.type == "I":
            gain = self._gain(node, "r", None, signal, dt)
            return (
                LeakyReadout(1.0, value=value, name=name),
                self._same(node, "r", gain),
                0.0,
            )
        decay, decay_input, synaptic_decay, gain = self._leak_of(node, signal, dt)
        layer = LeakyReadout(
            self._decays(decay, signal),
            decay_input=decay_input,
            synaptic_decay=self._decays(synaptic_decay, signal),
            value=value,
            name=name,
            **_learned(node, "learn_decay", "learn_synaptic_decay"),
        )
        return (
            layer,
            self._same(node, "r", gain),
            self._same(node, "v_leak", self._parameter(node, "v_leak", signal)),
        )

    def _leak_of(self, node, signal, dt):
        """`(decay, decay_input, synaptic_decay, gain)` of a node whose membrane
        leaks."""
        has_current = "tau_syn" in node.values
        tau = "tau_mem" if has_current else "tau"
        decay = self._decay(node, self._parameter(node, tau, signal), dt)
        decay_input = self._decay_input(node, decay, signal)
        # With decay_input the factor 1 − λ = dt/τ of the input is the neuron's own.
        gain = self._gain(
            node, "r", None if decay_input else tau, signal, 1.0 if decay_input else dt
        )
        if not has_current:
            return decay, decay_input, np.zeros(()), gain
        gain = gain * self._gain(node, "w_in", "tau_syn", signal, dt)
        return (
            decay,
            decay_input,
            self._decay(node, self._parameter(node, "tau_syn", signal), dt),
            gain,
        )

    def _time_step(self, node):
        dt = self._told(node, "dt", self.dt, _continuous_time.DT)
        if dt <= 0.0:
            raise node.refused(f"its metadata has dt={dt}, which must be > 0.")
        return dt

    def _arguments(self, node, signal, gain, dt, recurrent):
        """Threshold, reset and what else all layers have, in units in which the gain is
        1 and neurons rest at 0."""
        leak = 0.0 if node.type == "IF" else self._parameter(node, "v_leak", signal)
        threshold, v_reset = (
            _alike((self._parameter(node, key, signal) - leak) / gain)
            for key in ("v_threshold", "v_reset")
        )
        threshold = _continuous_time.threshold_from_nir(threshold, self.dtype)
        least = np.min(threshold)
        if least <= 0.0:
            raise node.refused(
                f"it is at rest above its threshold, by {-least}, and would spike "
                "without input."
            )
        if least < np.finfo(self.dtype).tiny:
            raise node.refused(
                f"its v_threshold is {least} above its rest, in units of its input. In "
                f"{self.dtype} this may be rounded to 0, and it would spike without "
                "input. Give it a threshold above its rest."
            )
        reset = self._told(node, "reset", self.reset, "hard")
        if reset not in ("soft", "hard"):
            raise node.refused(
                f"its metadata has reset={reset!r}, which is neither 'soft' nor 'hard'."
            )
        if reset == "soft" and (np.any(v_reset) or np.any(leak)):
            raise node.refused(
                "a soft reset subtracts the threshold, but its v_reset or v_leak is "
                "not 0: only a hard reset has these."
            )
        v_reset = _continuous_time.shortest(v_reset, self.dtype)
        if np.any(v_reset >= threshold):
            raise node.refused(
                f"its v_reset is above its threshold, by {np.max(v_reset - threshold)} "
                "in units of the layer."
            )
        return {
            "threshold": _argument(threshold, signal),
            "reset": reset,
            "v_reset": _argument(v_reset, signal),
            "reset_delay": self._delays_reset(node, reset, dt, recurrent),
            "detach_reset": bool(node.metadata.get("detach_reset", True)),
            "learn_threshold": bool(node.metadata.get("learn_threshold", False)),
            **_surrogate(node),
        }

    def _delays_reset(self, node, reset, dt, recurrent):
        if not _looks_like_snntorch(node, dt, recurrent):
            return self._told(node, "reset_delay", self.reset_delay, False)
        if node.type == "LIF" and reset == "hard" and not recurrent:
            # Leaky, which resets to zero at once, whatever its reset_delay. RLeaky
            # loses the input of the step.
            return False
        if self.reset_delay is None:
            self.perhaps_delayed.append(node.name)
        return bool(self.reset_delay)

    def _told(self, node, key, argument, default):
        """The value of the metadata, or else of the argument."""
        said = node.metadata.get(key)
        if isinstance(default, bool) and said is not None:
            said = bool(said)
        if said is None:
            if key == "reset" and argument is None:
                self.unsaid.append(node.name)
            return default if argument is None else argument
        if argument is not None and argument != said:
            raise node.refused(
                f"its metadata says {key}={said!r}, and the argument is "
                f"{key}={argument!r}. Leave the argument out."
            )
        return said

    def warn(self):
        """Warns of nodes that do not say how, or when, they are reset."""
        if self.unsaid:
            warnings.warn(
                "The file does not say how its neurons are reset "
                f"({listed(self.unsaid)}): they get a hard "
                'reset to v_reset. Pass reset="hard" to confirm this, or reset="soft" '
                "if a spike subtracts the threshold.",
                stacklevel=3,
            )
        if self.perhaps_delayed:
            warnings.warn(
                "The file looks like one of snnTorch "
                f"({listed(self.perhaps_delayed)}), which resets neurons one step "
                "after their spike unless they were made with reset_delay=False. The "
                "file does not say it: they are reset at once here. Pass "
                "reset_delay=True if their reset is delayed, or reset_delay=False to "
                "confirm that it is not.",
                stacklevel=3,
            )

    def _decay_input(self, node, decay, signal):
        """Whether the input is scaled by 1 − λ and nothing else: a resistance of 1."""
        said = node.metadata.get("decay_input")
        if said is not None:
            return bool(said)
        resistance = _continuous_time.gain_of(
            self._parameter(node, "r", signal), None, 1.0
        )
        return bool(np.all(resistance == 1.0) and np.any(decay))

    def _gain(self, node, resistance, tau, signal, dt):
        tau = None if tau is None else self._parameter(node, tau, signal)
        gain = _continuous_time.gain_of(
            self._parameter(node, resistance, signal), tau, dt
        )
        if not gain.min() > 0.0:
            raise node.refused(
                f"its input has the factor {gain.min()}, which must be > 0."
            )
        return gain

    def _decay(self, node, tau, dt):
        decay = _continuous_time.decay_of(tau, dt)
        if not (decay.min() >= 0.0 and decay.max() < 1.0):
            raise node.refused(
                f"its time constants are from {np.min(tau)} to {np.max(tau)} seconds. "
                f"They must be at least the time step, dt={dt} seconds, and finite. "
                "Pass the time step that the file is for as dt."
            )
        return decay

    def _parameter(self, node, key, signal):
        """The values of a parameter: one of shape `()` if all are the same, or those of
        all neurons."""
        parameter = node.values[key]
        if parameter.shape != signal.shape and np.prod(parameter.shape) != 1:
            raise node.refused(
                f"its {key} has the shape {parameter.shape}, but its input has the "
                f"shape {signal.shape} (channels first)."
            )
        return parameter.values

    def _same(self, node, key, values):
        """The one value that all membranes of a readout have."""
        values = _alike(values)
        if values.ndim:
            raise node.refused(
                f"its membranes differ in {key}, from {values.min()} to {values.max()} "
                "in units of the layer. Here the output of a layer has one scale."
            )
        return float(values)

    def _decays(self, values, signal):
        """Decays as an argument."""
        return _argument(_continuous_time.shortest(_alike(values), self.dtype), signal)

    def _by_channel(self, decay, signal):
        """The axis of a layer's channels, and one decay for each channel, in our order;
        `None` if all channels share it.

        Channels are usually the first or the last axis, but a `ParametricLIF` may have
        them on any axis. The axis is `None` if decays differ within a channel, on
        whatever axis.
        """
        usual = 1 if self.data_format == _layouts.CHANNELS_FIRST else -1
        if decay.ndim == 0:
            return usual, None
        if decay.ndim == 1:
            return usual, decay if signal.order() is None else decay[signal.order()]
        decay = _layouts.from_nir(decay, signal.data_format)
        for axis in (usual, *range(1, decay.ndim + 1)):
            sample_axis = axis - 1 if axis > 0 else axis
            rows = np.moveaxis(decay, sample_axis, 0).reshape(
                decay.shape[sample_axis], -1
            )
            if np.all(rows == rows[:, :1]):
                return axis, rows[:, 0]
        return None, None


def _alike(values):
    """Values of neurons as an array: of shape `()` if all are the same, but for
    rounding."""
    values = np.asarray(values, "float64")
    low, high = values.min(), values.max()
    return values if high - low > 1e-6 * max(abs(low), abs(high)) else high


def _argument(values, signal):
    """A parameter as an argument: a number, or an array that broadcasts to our samples,
    as small as can be."""
    values = np.asarray(values)
    if values.ndim == 0:
        return float(values)
    if values.ndim == 1:
        return values if signal.order() is None else values[signal.order()]
    values = _layouts.from_nir(values, signal.data_format)
    for axis in range(values.ndim):
        first = np.take(values, [0], axis)
        values = first if np.all(values == first) else values
    # An array of one axis lies along the last one, that of the channels.
    return values[
        (0,) * next(axis for axis, size in enumerate(values.shape) if size > 1)
    ]


def _learned(node, *names):
    """Which parameters are learned, as arguments."""
    return {name: bool(node.metadata.get(name, False)) for name in names}


def _looks_like_snntorch(node, dt, recurrent):
    """Whether a node is as snnTorch writes it: with a gain of 1, at rest at 0, without
    metadata, and in float32.

    SpikingJelly writes the same numbers in float64, other programs another resistance.
    snnTorch, too, writes recurrent neurons in float64, which SpikingJelly does not
    write at all.
    """
    if node.type == "IF" or node.metadata:
        return False
    values = {key: parameter.values for key, parameter in node.values.items()}
    tau = values["tau" if node.type == "LIF" else "tau_mem"]
    in_its_dtype = recurrent or all(
        array.dtype == "float32" for array in (tau, values["r"], values["v_threshold"])
    )
    at_rest = not np.any(values["v_leak"]) and not np.any(values["v_reset"])
    return (
        in_its_dtype
        and at_rest
        and bool(np.all(_continuous_time.gain_of(values["r"], tau, dt) == 1.0))
    )


def _surrogate(node):
    """The surrogate that the metadata names, as an argument; no code of a file is
    run."""
    text = node.metadata.get("surrogate")
    if text is None:
        return {}
    match = re.fullmatch(r"(\w+)\((?:(\w+)=([-+.\w]+))?\)", text)
    if match is None or match[1] not in _SURROGATES:
        warnings.warn(
            f"Node {node.name!r} was trained with the surrogate {text}, which is not "
            "one of keras_ratesnn. The layer gets the default one. In inference it is "
            "not used.",
            stacklevel=2,
        )
        return {}
    name, argument, value = match.groups()
    try:
        return {
            "surrogate": _SURROGATES[name](
                **({argument: float(value)} if argument else {})
            )
        }
    except (TypeError, ValueError) as error:
        raise node.refused(f"its metadata has the surrogate {text}: {error}") from error
