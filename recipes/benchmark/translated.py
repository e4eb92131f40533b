"""A network of this library in another one, with the same layers and weights, to run it
or to train it with that one's BPTT."""

import collections
import inspect
import math

import keras
import numpy as np
import torch
from torch import nn

import keras_ratesnn
from keras_ratesnn import surrogates
from recipes.benchmark.peers import ALPHA, LIBRARIES, SnnTorch
from recipes.checks import mistake


class Translated(nn.Module):
    """The network of a `SpikingModel`, for the same `channels_last` inputs; it returns
    the time means of the logits.

    What comes before the first neurons of an image runs once. SpikingJelly runs in
    multi-step mode. snnTorch runs in a loop over time around the network, as is usual
    with it: normalisation has statistics of one step. Masked sequences `(batch, T,
    features)`, of which some steps have no frames, run layer by layer in both, with
    statistics of all frames.

    Args:
        model: `SpikingModel` of layers that `module_of` knows, whose first layers up to
            the first neurons are a chain.
        library: A name of `peers.LIBRARIES`. Defaults to `"spikingjelly"`.
    """

    def __init__(self, model, library="spikingjelly"):
        super().__init__()
        self.timesteps, self.masked = model.timesteps, model.mask_value is not None
        self.loops = LIBRARIES[library] is SnnTorch and not self.masked
        (first, source), *others = blocks(model.network, library, self.masked)
        self.stem = nn.Identity()
        if not self.masked:
            self.stem, first = first.main, first.neuron
        self.stages = Graph([(first, source), *others])
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
            return (self.stages(x.nan_to_num().transpose(0, 1)) * weights).sum(
                0
            ) / weights.sum(0)
        current = self.stem(x.permute(0, 3, 1, 2))
        if self.loops:
            return (
                sum(self.stages(current) for _ in range(self.timesteps))
                / self.timesteps
            )
        return self.stages(
            current.expand(self.timesteps, *current.shape).contiguous()
        ).mean(0)

    @staticmethod
    def _valid(x):
        """Which frames of sequences are no padding, `(T, batch)`."""
        return ~x.isnan().any(-1).T


class Graph(nn.Module):
    """Modules, each with the numbers of the values that it takes: 0 is the input, and k
    what the k-th module returns."""

    def __init__(self, nodes):
        super().__init__()
        modules, self.sources = zip(*nodes, strict=True)
        self.nodes = nn.ModuleList(modules)

    def forward(self, x):
        values = [x]
        for module, sources in zip(self.nodes, self.sources, strict=True):
            values.append(module(*(values[source] for source in sources)))
        return values[-1]


class Chain(nn.Module):
    """Layers one after the other, and the neurons after them: what SpikingJelly's
    memory optimisation computes again."""

    def __init__(self, layers, neuron):
        super().__init__()
        self.main, self.neuron = nn.Sequential(*layers), neuron

    def forward(self, *x):
        first, *others = self.main or [nn.Identity()]
        x = first(*x)
        for layer in others:
            x = layer(x)
        return self.neuron(x)


def blocks(network, library, masked):
    """The modules of a network as nodes of a `Graph`: a `Chain` of each row of layers
    up to neurons."""
    nodes, number = [], {}

    def call(layer, *args, **kwargs):
        if any(layer is before for before, _, _ in nodes):
            raise _untranslated(layer, "It must be called once.")
        output = layer(*args, **kwargs)
        number[id(output)] = len(nodes) + 1
        # The outputs are kept, so that no other gets the same id.
        nodes.append(
            (layer, [number.get(id(x), 0) for x in keras.tree.flatten(args)], output)
        )
        return output

    keras.models.clone_model(
        network, clone_function=lambda layer: layer, call_function=call
    )
    uses = collections.Counter(source for _, sources, _ in nodes for source in sources)
    chains, place = [], {0: 0}
    for index, (layer, sources, _) in enumerate(nodes, 1):
        before = place[sources[0]]
        if (
            len(sources) > 1
            or uses[sources[0]] > 1
            or not before
            or _is_neuron(chains[before - 1][0][-1])
        ):
            chains.append(([], [place[source] for source in sources]))
            before = len(chains)
        chains[before - 1][0].append(layer)
        place[index] = before
    return [(_chain(layers, library, masked), sources) for layers, sources in chains]


def _chain(layers, library, masked):
    *main, last = [module_of(layer, library, masked) for layer in layers]
    return (
        Chain(main, last)
        if _is_neuron(layers[-1])
        else Chain([*main, last], nn.Identity())
    )


def _is_neuron(layer):
    return isinstance(layer, keras_ratesnn.layers.Neuron)


class Scale(nn.Module):
    """x · scale + offset."""

    def __init__(self, scale, offset=0.0):
        super().__init__()
        self.scale, self.offset = scale, offset

    def forward(self, x):
        return x * self.scale + self.offset


class Sum(nn.Module):
    def forward(self, *inputs):
        return sum(inputs)


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
        library: A name of `peers.LIBRARIES`. Defaults to `"spikingjelly"`.
        masked: Boolean, whether it is for masked sequences. Defaults to `False`.

    Raises:
        ValueError: If it has none.
    """
    kind = type(source)
    arguments, translate = TRANSLATIONS.get(kind, ((), None))
    if translate is None:
        raise _untranslated(source, f"{library} gets none of type {kind.__name__}.")
    defaults = {
        name: argument.default
        for name, argument in inspect.signature(kind).parameters.items()
    }
    defaults["trainable"] = True
    for name, value in source.get_config().items():
        is_taken_over = name in (*arguments, *SAME_FOR_ALL) or name.endswith(
            "_initializer"
        )
        if not is_taken_over and (name not in defaults or value != defaults[name]):
            raise _untranslated(
                source, f"{library} gets no {kind.__name__} with {name}={value!r}."
            )
    return translate(source, library, masked)


def _untranslated(layer, remedy):
    return mistake("network", "of layers that have a translation", layer.name, remedy)


def _scale(source, library, masked):
    if np.ndim(source.scale) or np.ndim(source.offset):
        raise _untranslated(source, "Its scale and its offset must be numbers.")
    return Scale(source.scale, source.offset)


def _convolution(source, library, masked):
    if source.data_format != "channels_last":
        raise _untranslated(source, "Its data must be `channels_last`.")
    *size, _, _ = source.kernel.shape
    padding, before = source.padding, []
    if padding == "same" and max(source.strides) > 1:
        padding, before = (
            0,
            [nn.ZeroPad2d(_same_padding(source, size, source.dilation_rate))],
        )
    inputs = source.kernel.shape[2] * source.groups
    options = {
        "padding": padding,
        "dilation": source.dilation_rate,
        "groups": source.groups,
        "bias": source.use_bias,
    }
    convolution = (
        LIBRARIES[library]
        .parts()
        .Conv2d(inputs, source.filters, tuple(size), source.strides, **options)
    )
    convolution = _with_values(
        convolution, weight=np.transpose(source.kernel, (3, 2, 0, 1)), **_bias(source)
    )
    return _in_a_row([*before, convolution, *_activation(source)])


def _same_padding(source, size, dilation):
    """The zeros left, right, above and below with which Keras pads: of an odd number
    the larger part comes after."""
    lengths, sides = source.input.shape[1:3], ()
    for length, extent, stride, spread in zip(
        lengths, size, source.strides, dilation, strict=True
    ):
        zeros = max(
            (math.ceil(length / stride) - 1) * stride
            + (extent - 1) * spread
            + 1
            - length,
            0,
        )
        sides = (zeros // 2, zeros - zeros // 2, *sides)
    return sides


def _dense(source, library, masked):
    module = (
        LIBRARIES[library].parts().Linear(*source.kernel.shape, bias=source.use_bias)
    )
    return _in_a_row(
        [
            _with_values(module, weight=np.transpose(source.kernel), **_bias(source)),
            *_activation(source),
        ]
    )


def _bias(source):
    return {"bias": source.bias} if source.use_bias else {}


def _activation(source):
    """The modules of a layer's activation, a list."""
    name = keras.activations.serialize(source.activation)
    if name not in ACTIVATIONS:
        raise _untranslated(
            source, f"Its activation must be one of {', '.join(ACTIVATIONS)}."
        )
    return [kind() for kind in ACTIVATIONS[name]]


def _in_a_row(modules):
    return modules[0] if len(modules) == 1 else nn.Sequential(*modules)


def _normalization(source, library, masked):
    kind = MaskedNorm if masked else LIBRARIES[library].parts().BatchNorm2d
    module = kind(
        source.gamma.shape[0], eps=source.epsilon, momentum=1 - source.momentum
    )
    statistics = {
        "running_mean": source.moving_mean,
        "running_var": source.moving_variance,
    }
    return _with_values(module, weight=source.gamma, bias=source.beta, **statistics)


def _average_pooling(source, library, masked):
    left, _, above, _ = _same_padding(source, source.pool_size, (1, 1))
    if source.padding == "same" and (left or above):
        raise _untranslated(source, "What it pads must be after the image.")
    ends = {"ceil_mode": source.padding == "same", "count_include_pad": False}
    return (
        LIBRARIES[library].parts().AvgPool2d(source.pool_size, source.strides, **ends)
    )


def _global_pooling(source, library, masked):
    parts = LIBRARIES[library].parts()
    return nn.Sequential(parts.AdaptiveAvgPool2d(1), parts.Flatten())


def _neurons(source, library, masked):
    cell, surrogate = source.cell, source.cell.surrogate
    theirs = (
        isinstance(surrogate, surrogates.Sigmoid)
        and surrogate.alpha == ALPHA
        and cell.reset == "soft"
    )
    # The reset of snnTorch's comes a step later in any case.
    if not (
        theirs and cell.detach_reset and (library == "snntorch" or not cell.reset_delay)
    ):
        raise _untranslated(
            source, f"{library} has no LIF with its reset and surrogate."
        )
    if np.ndim(cell.decay) or np.ndim(cell.threshold):
        raise _untranslated(source, "Its decay and its threshold must be numbers.")
    decay, threshold = float(cell.decay), float(cell.threshold)
    if library == "spikingjelly":
        return LIBRARIES[library].lif(
            decay, decay_input=cell.decay_input, v_threshold=threshold
        )
    neurons = LIBRARIES[library].lif(beta=decay, threshold=threshold)
    neurons = OverSteps(neurons) if masked else neurons
    return nn.Sequential(Scale(1 - decay), neurons) if cell.decay_input else neurons


def _dropout(source, library, masked):
    return LIBRARIES[library].parts().Dropout(source.rate)


def _with_values(module, **values):
    """The module with the values of Keras variables or arrays."""
    with torch.no_grad():
        for name, value in values.items():
            getattr(module, name).copy_(
                torch.as_tensor(np.array(keras.ops.convert_to_numpy(value)))
            )
    return module


SAME_FOR_ALL = ("name", "dtype", "data_format")
"""Arguments of a layer that are no part of what it computes, or are said for the whole
network, besides initial values."""

ACTIVATIONS = {
    "linear": (),
    "relu": (nn.ReLU,),
    "sigmoid": (nn.Sigmoid,),
    "tanh": (nn.Tanh,),
}
"""The modules of activations by their names in Keras."""

_OF_CONVOLUTION = (
    "filters",
    "kernel_size",
    "strides",
    "padding",
    "dilation_rate",
    "groups",
    "activation",
    "use_bias",
)
_OF_NEURONS = (
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
    keras.layers.Conv2D: (_OF_CONVOLUTION, _convolution),
    keras.layers.Dense: (("units", "activation", "use_bias"), _dense),
    keras.layers.BatchNormalization: (("momentum", "epsilon"), _normalization),
    keras.layers.AveragePooling2D: (
        ("pool_size", "strides", "padding"),
        _average_pooling,
    ),
    keras.layers.GlobalAveragePooling2D: ((), _global_pooling),
    keras.layers.Dropout: (("rate", "seed"), _dropout),
    keras.layers.Add: ((), lambda source, library, masked: Sum()),
    keras_ratesnn.layers.LIF: (_OF_NEURONS, _neurons),
}
"""By class of layer: the arguments that its translation takes over, and the function
that makes the module."""
