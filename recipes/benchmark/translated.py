"""A network of this library in another one, with the same layers and weights, to run it
or to train it with that one's BPTT."""

import collections
import inspect
import math

import keras
import numpy as np
import torch
from torch import nn

from keras_ratesnn import layers, surrogates
from recipes.checks import mistake

ALPHA = 4.0
"""Steepness of the sigmoid surrogate, as in `keras_ratesnn.layers.LIF`."""


class Translated(nn.Module):
    """A network in another library, for the same `channels_last` inputs; it returns the
    time means of the logits.

    What comes before the first neurons of an image runs once. SpikingJelly runs in
    multi-step mode. snnTorch runs in a loop over time around the network, as is usual
    with it: normalisation has statistics of one step. Masked sequences `(batch, T,
    features)`, of which some steps have no frames, run layer by layer in both, with
    statistics of all frames.

    Args:
        model: `SpikingModel` of layers that `module_of` knows, whose first layers up to
            the first neurons are a chain.
        library: "spikingjelly" or "snntorch". Defaults to `"spikingjelly"`.
    """

    def __init__(self, model, library="spikingjelly"):
        super().__init__()
        network, self.timesteps = model.network, model.timesteps
        self.masked = model.mask_value is not None
        self.has_time = len(network.input_shape) == 2
        self.loops = library == "snntorch" and not self.masked
        nodes = _chains(network, library, self.masked)
        self.stem = nn.Identity()
        if not self.has_time:
            (first, sources), *rest = nodes
            self.stem = first.main
            nodes = [(first.neuron, sources), *rest]
        self.stages = nn.Sequential(*_segments(nodes))
        self.reset = "reset_mem"
        if library == "spikingjelly":
            self.reset = "reset"
            from spikingjelly.activation_based import functional

            functional.set_step_mode(self.stages, "m")

    def forward(self, x):
        for module in self.stages.modules():
            if isinstance(module, MaskedNorm):
                module.valid = self._valid(x)
            elif hasattr(module, self.reset):
                getattr(module, self.reset)()
        x = x.to(next(self.parameters()).dtype)
        if self.masked:
            weights = self._valid(x).unsqueeze(-1).to(x.dtype)
            outputs = self.stages(x.nan_to_num().transpose(0, 1))
            return (outputs * weights).sum(0) / weights.sum(0)
        if self.has_time:
            steps = x.transpose(0, 1)
        else:
            current = self.stem(x.permute(0, 3, 1, 2).contiguous())
            steps = current.expand(self.timesteps, *current.shape)
        if self.loops:
            return sum(self.stages(step) for step in steps) / len(steps)
        return self.stages(steps.contiguous()).mean(0)

    @staticmethod
    def _valid(x):
        """Which frames of sequences are no padding, `(T, batch)`."""
        return ~x.isnan().any(-1).T


class Segment(nn.Module):
    """Modules that pass on one value, such as a residual block: what SpikingJelly's
    memory optimisation computes again.

    Args:
        nodes: List of pairs of a module and the numbers of the values that it takes: 0
            is the input, and k what the k-th module returns.
    """

    def __init__(self, nodes):
        super().__init__()
        self.nodes = nn.ModuleList([module for module, _ in nodes])
        self.sources = [sources for _, sources in nodes]

    @property
    def parts(self):
        """The parts that the memory optimisation may compute one by one."""
        first = self.nodes[0]
        if len(self.nodes) == 1 and isinstance(first, Chain):
            return first.main, first.neuron
        return tuple(self.nodes)

    def forward(self, x):
        values = [x]
        for module, sources in zip(self.nodes, self.sources, strict=True):
            inputs = [values[source] for source in sources]
            values.append(module(*inputs))
        return values[-1]


def _segments(nodes):
    """The nodes of a network in segments, of which each takes what the last returns."""
    segments, begin = [], 0
    for end in range(1, len(nodes) + 1):
        later = [source for _, sources in nodes[end:] for source in sources]
        if min(later, default=end) == end:
            own = []
            for module, sources in nodes[begin:end]:
                own.append((module, [source - begin for source in sources]))
            segments.append(Segment(own))
            begin = end
    return segments


class Chain(nn.Module):
    """Modules one after the other, and the neurons after them."""

    def __init__(self, modules, neuron):
        super().__init__()
        self.main, self.neuron = nn.Sequential(*modules), neuron

    def forward(self, *x):
        for module in self.main:
            x = (module(*x),)
        return self.neuron(*x)


def _chains(network, library, masked):
    """The modules of a network as nodes of a `Segment`: a `Chain` of each row of layers
    up to neurons."""
    calls = _calls(network)
    uses = collections.Counter(source for _, sources in calls for source in sources)
    rows, row_of = [], {0: 0}
    for index, (layer, sources) in enumerate(calls, 1):
        row = row_of[sources[0]]
        is_only_use = len(sources) == uses[sources[0]] == 1
        if not (row and is_only_use) or _is_neuron(rows[row - 1][0][-1]):
            rows.append(([], [row_of[source] for source in sources]))
            row = len(rows)
        rows[row - 1][0].append(layer)
        row_of[index] = row
    return [(_chain(row, library, masked), sources) for row, sources in rows]


def _calls(network):
    """The calls of a network in order: pairs of a layer and the numbers of the values
    that it takes, as in `Segment`."""
    calls, numbers, outputs = [], {}, []

    def call(layer, *args, **kwargs):
        if any(layer is earlier for earlier, _ in calls):
            raise _untranslated(layer, "It must be called once.")
        calls.append((layer, [numbers.get(id(x), 0) for x in keras.tree.flatten(args)]))
        output = layer(*args, **kwargs)
        numbers[id(output)] = len(calls)
        # They are kept, so that no other gets the same id.
        outputs.append(output)
        return output

    keras.models.clone_model(
        network, clone_function=lambda layer: layer, call_function=call
    )
    return calls


def _chain(row, library, masked):
    """The `Chain` of a row of layers."""
    modules = []
    for layer in row:
        module = module_of(layer, library, masked)
        padding = modules[-1] if modules else None
        if isinstance(padding, nn.ZeroPad2d) and isinstance(module, nn.Conv2d):
            # As users of these libraries write it.
            modules.pop()
            module.padding = padding.padding[2], padding.padding[0]
        modules.append(module)
    neuron = modules.pop() if _is_neuron(row[-1]) else nn.Identity()
    return Chain(modules, neuron)


def _is_neuron(layer):
    return isinstance(layer, (layers.Neuron, layers.Recurrent))


class Scale(nn.Module):
    """x · scale + offset."""

    def __init__(self, scale, offset=0.0):
        super().__init__()
        self.scale, self.offset = scale, offset

    def forward(self, x):
        return x * self.scale + self.offset


class Sum(nn.Module):
    def forward(self, first, *rest):
        # Python's `sum` would add 0 to the first.
        for x in rest:
            first = first + x
        return first


class MaskedNorm(nn.BatchNorm1d):
    """Batch normalisation of the frames of sequences `(T, batch, features)` that are
    `valid`; what is padding becomes 0."""

    def forward(self, x):
        result = torch.zeros_like(x)
        result[self.valid] = super().forward(x[self.valid])
        return result


class OverSteps(nn.Module):
    """snnTorch's neurons in a loop over the first axis."""

    def __init__(self, neurons):
        super().__init__()
        self.neurons = neurons

    def forward(self, x):
        return torch.stack([self.neurons(step) for step in x])


def module_of(source, library="spikingjelly", masked=False):
    """The module of a Keras layer on `channels_last` data.

    A layer has a translation if its class has one, and if all arguments that this one
    does not take over have their defaults: so no argument is lost.

    Args:
        source: A built layer.
        library: "spikingjelly" or "snntorch". Defaults to `"spikingjelly"`.
        masked: Boolean, whether it is for masked sequences. Defaults to `False`.

    Raises:
        ValueError: If it has none.
    """
    kind = type(source)
    if kind not in TRANSLATIONS:
        raise _untranslated(source, f"{library} gets none of type {kind.__name__}.")
    arguments, translate = TRANSLATIONS[kind]
    parameters = inspect.signature(kind).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    defaults["trainable"] = True
    for name, value in source.get_config().items():
        if name in (*arguments, *SAME_FOR_ALL) or name.endswith("_initializer"):
            continue
        if name not in defaults or value not in (defaults[name], "linear"):
            raise _untranslated(
                source, f"{library} gets no {kind.__name__} with {name}={value!r}."
            )
    return translate(source, library, masked)


def _untranslated(layer, remedy):
    return mistake("network", "of layers that have a translation", layer.name, remedy)


def _parts(library):
    """The module with a library's layers without neurons."""
    if library == "spikingjelly":
        from spikingjelly.activation_based import layer

        return layer
    return nn


def _scale(source, library, masked):
    if np.ndim(source.scale) or np.ndim(source.offset):
        raise _untranslated(source, "Its scale and its offset must be numbers.")
    return Scale(source.scale, source.offset)


def _zero_padding(source, library, masked):
    (above, below), (left, right) = source.padding
    if above != below or left != right:
        raise _untranslated(source, "Its padding must be the same on opposite sides.")
    return nn.ZeroPad2d((left, right, above, below))


def _convolution(source, library, masked):
    *size, inputs, filters = source.kernel.shape
    zeros = (0, 0, 0, 0)
    if source.padding == "same":
        zeros = _same_padding(source, size)
    left, right, above, below = zeros
    is_even = (left, above) == (right, below)
    convolution = _parts(library).Conv2d(
        inputs,
        filters,
        size,
        source.strides,
        (above, left) if is_even else 0,
        bias=source.use_bias,
    )
    kernel = np.transpose(source.kernel, (3, 2, 0, 1))
    convolution = _with_values(convolution, weight=kernel, **_bias(source))
    return convolution if is_even else nn.Sequential(nn.ZeroPad2d(zeros), convolution)


def _same_padding(source, size):
    """The zeros left, right, above and below with which Keras pads: of an odd number
    the larger part comes after."""
    sides = ()
    for length, extent, stride in zip(
        source.input.shape[1:3], size, source.strides, strict=True
    ):
        covered = (math.ceil(length / stride) - 1) * stride + extent
        zeros = max(covered - length, 0)
        sides = (zeros // 2, zeros - zeros // 2, *sides)
    return sides


def _dense(source, library, masked):
    linear = _parts(library).Linear(*source.kernel.shape, bias=source.use_bias)
    kernel = np.transpose(source.kernel)
    return _with_values(linear, weight=kernel, **_bias(source))


def _bias(source):
    return {"bias": source.bias} if source.use_bias else {}


def _normalization(source, library, masked):
    kind = MaskedNorm if masked else _parts(library).BatchNorm2d
    module = kind(
        source.gamma.shape[0], eps=source.epsilon, momentum=1 - source.momentum
    )
    return _with_values(
        module,
        weight=source.gamma,
        bias=source.beta,
        running_mean=source.moving_mean,
        running_var=source.moving_variance,
    )


def _average_pooling(source, library, masked):
    left, _, above, _ = _same_padding(source, source.pool_size)
    is_same = source.padding == "same"
    if is_same and (left or above):
        raise _untranslated(source, "What it pads must be after the image.")
    return _parts(library).AvgPool2d(
        source.pool_size, source.strides, ceil_mode=is_same, count_include_pad=False
    )


def _global_pooling(source, library, masked):
    parts = _parts(library)
    return nn.Sequential(parts.AdaptiveAvgPool2d(1), parts.Flatten())


def _neurons(source, library, masked):
    neurons = _lif(source, source.cell, library)
    if library == "spikingjelly":
        return neurons
    neurons = OverSteps(neurons) if masked else neurons
    if source.cell.decay_input:
        return nn.Sequential(Scale(1 - float(source.cell.decay)), neurons)
    return neurons


def _lif(source, cell, library, **recurrence):
    """A library's LIF neurons of a cell of ours; `recurrence` are further arguments of
    snnTorch's recurrent ones.

    snnTorch's subtract the threshold at the next step, after the decay, by default. The
    undelayed reset is not detached from the gradient, so it differs more from ours.
    """
    is_known = (
        isinstance(cell.surrogate, surrogates.Sigmoid)
        and cell.surrogate.alpha == ALPHA
        and cell.reset == "soft"
        and cell.detach_reset
        # The reset of snnTorch's comes a step later in any case.
        and (library == "snntorch" or not cell.reset_delay)
    )
    if not is_known:
        raise _untranslated(
            source, f"{library} has no LIF with its reset and surrogate."
        )
    if np.ndim(cell.decay) or np.ndim(cell.threshold):
        raise _untranslated(source, "Its decay and its threshold must be numbers.")
    decay, threshold = float(cell.decay), float(cell.threshold)
    if library == "snntorch":
        import snntorch

        kind = snntorch.RLeaky if recurrence else snntorch.Leaky
        slope = snntorch.surrogate.sigmoid(slope=ALPHA)
        return kind(
            beta=decay,
            threshold=threshold,
            spike_grad=slope,
            init_hidden=True,
            **recurrence,
        )
    from spikingjelly.activation_based import neuron, surrogate

    return neuron.LIFNode(
        tau=1 / (1 - decay),
        decay_input=cell.decay_input,
        v_threshold=threshold,
        v_reset=None,
        detach_reset=True,
        surrogate_function=surrogate.Sigmoid(ALPHA),
    )


def _recurrent(source, library, masked):
    """Recurrent neurons with new weights. SpikingJelly's synapse, from the input and
    the spikes, and snnTorch's, which has a bias, do more than ours."""
    units = source.synapse.units
    if library == "snntorch":
        return _lif(source, source.neuron, library, linear_features=units)
    neurons = _lif(source, source.neuron, library)
    return _parts(library).LinearRecurrentContainer(neurons, units, units, bias=False)


def _sliding(source, library, masked):
    """SpikingJelly's sliding neurons with new weights. It multiplies by a matrix of
    T x T."""
    if library != "spikingjelly":
        raise _untranslated(source, f"{library} has no parallel neurons.")
    from spikingjelly.activation_based import neuron, surrogate

    return neuron.SlidingPSN(source.order, surrogate_function=surrogate.Sigmoid(ALPHA))


def _dropout(source, library, masked):
    return _parts(library).Dropout(source.rate)


def _with_values(module, **values):
    """The module with the values of Keras variables or arrays."""
    with torch.no_grad():
        for name, value in values.items():
            array = np.array(keras.ops.convert_to_numpy(value))
            getattr(module, name).copy_(torch.as_tensor(array))
    return module


SAME_FOR_ALL = ("name", "dtype", "data_format")
"""Arguments of a layer that are no part of what it computes, or are said for the whole
network, besides initial values."""

CONVOLUTION = ("filters", "kernel_size", "strides", "padding", "use_bias")
POOLING = ("pool_size", "strides", "padding")
NEURONS = (
    "decay",
    "threshold",
    "decay_input",
    "surrogate",
    "reset",
    "detach_reset",
    "reset_delay",
)

TRANSLATIONS = {
    keras.layers.Rescaling: (("scale", "offset"), _scale),
    keras.layers.ZeroPadding2D: (("padding",), _zero_padding),
    keras.layers.Conv2D: (CONVOLUTION, _convolution),
    keras.layers.Dense: (("units", "use_bias"), _dense),
    keras.layers.BatchNormalization: (("momentum", "epsilon"), _normalization),
    keras.layers.AveragePooling2D: (POOLING, _average_pooling),
    keras.layers.GlobalAveragePooling2D: ((), _global_pooling),
    keras.layers.Dropout: (("rate", "seed"), _dropout),
    keras.layers.Add: ((), lambda source, library, masked: Sum()),
    layers.LIF: (NEURONS, _neurons),
    layers.Recurrent: (("neuron", "synapse"), _recurrent),
    layers.SlidingPSN: (("order", "surrogate"), _sliding),
}
"""By class of layer: the arguments that its translation takes over, and the function
that makes the module."""
