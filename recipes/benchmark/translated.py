"""A network of this library in another one, with the same layers and weights, to run it or to train it with that one's BPTT."""

import collections

import keras
import numpy as np
import torch
from torch import nn

import keras_ratesnn
from keras_ratesnn import surrogates
from recipes.benchmark.peers import ALPHA, LIBRARIES, SnnTorch
from recipes.checks import mistake


class Translated(nn.Module):
    """The network of a `SpikingModel`, for the same `channels_last` inputs; it returns the time means of the logits.

    What comes before the first neurons of an image runs once. SpikingJelly runs in multi-step mode. snnTorch runs in a loop
    over time around the network, as is usual with it: normalisation has statistics of one step. Masked sequences `(batch, T,
    features)`, of which some steps have no frames, run layer by layer in both, with statistics of all frames.

    Args:
        model: `SpikingModel` of layers that `module_of` knows, whose first layers up to the first neurons are a chain.
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
            return (self.stages(x.nan_to_num().transpose(0, 1)) * weights).sum(0) / weights.sum(0)
        current = self.stem(x.permute(0, 3, 1, 2))
        if self.loops:
            return sum(self.stages(current) for _ in range(self.timesteps)) / self.timesteps
        return self.stages(current.expand(self.timesteps, *current.shape).contiguous()).mean(0)

    @staticmethod
    def _valid(x):
        """Which frames of sequences are no padding, `(T, batch)`."""
        return ~x.isnan().any(-1).T


class Graph(nn.Module):
    """Modules, each with the numbers of the values that it takes: 0 is the input, and k what the k-th module returns."""

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
    """Layers one after the other, and the neurons after them: what SpikingJelly's memory optimisation computes again."""

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
    """The modules of a network as nodes of a `Graph`: a `Chain` of each row of layers up to neurons."""
    nodes, number = [], {}

    def call(layer, *args, **kwargs):
        output = layer(*args, **kwargs)
        number[id(output)] = len(nodes) + 1
        # The outputs are kept, so that no other gets the same id.
        nodes.append((layer, [number.get(id(x), 0) for x in keras.tree.flatten(args)], output))
        return output

    keras.models.clone_model(network, clone_function=lambda layer: layer, call_function=call)
    uses = collections.Counter(source for _, sources, _ in nodes for source in sources)
    chains, place = [], {0: 0}
    for index, (layer, sources, _) in enumerate(nodes, 1):
        before = place[sources[0]]
        if len(sources) > 1 or uses[sources[0]] > 1 or not before or _is_neuron(chains[before - 1][0][-1]):
            chains.append(([], [place[source] for source in sources]))
            before = len(chains)
        chains[before - 1][0].append(layer)
        place[index] = before
    return [(_chain(layers, library, masked), sources) for layers, sources in chains]


def _chain(layers, library, masked):
    *main, last = [module_of(layer, library, masked) for layer in layers]
    return Chain(main, last) if _is_neuron(layers[-1]) else Chain([*main, last], nn.Identity())


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
    """Batch normalisation of the frames of sequences `(T, batch, features)` that are `valid`; what is padding becomes 0."""

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

    Args:
        source: A built layer.
        library: A name of `peers.LIBRARIES`. Defaults to `"spikingjelly"`.
        masked: Boolean, whether it is for masked sequences. Defaults to `False`.

    Raises:
        ValueError: If the library has none.
    """
    parts = LIBRARIES[library].parts()
    if isinstance(source, keras.layers.Rescaling):
        return Scale(source.scale, source.offset)
    if isinstance(source, keras.layers.Conv2D):
        height, width, inputs, outputs = source.kernel.shape
        module = parts.Conv2d(inputs, outputs, (height, width), padding="same", bias=source.use_bias)
        return _with_values(module, weight=np.transpose(source.kernel, (3, 2, 0, 1)))
    if isinstance(source, keras.layers.BatchNormalization):
        kind = MaskedNorm if masked else parts.BatchNorm2d
        module = kind(source.gamma.shape[0], eps=source.epsilon, momentum=1 - source.momentum)
        statistics = {"running_mean": source.moving_mean, "running_var": source.moving_variance}
        return _with_values(module, weight=source.gamma, bias=source.beta, **statistics)
    if isinstance(source, keras_ratesnn.layers.LIF) and _is_theirs(source.cell, library):
        return _neurons(source.cell, library, masked)
    if isinstance(source, keras.layers.AveragePooling2D):
        return parts.AvgPool2d(source.pool_size, ceil_mode=source.padding == "same", count_include_pad=False)
    if isinstance(source, keras.layers.GlobalAveragePooling2D):
        return nn.Sequential(parts.AdaptiveAvgPool2d(1), parts.Flatten())
    if isinstance(source, keras.layers.Dropout):
        return parts.Dropout(source.rate)
    if isinstance(source, keras.layers.Add):
        return Sum()
    if isinstance(source, keras.layers.Dense):
        bias = {"bias": source.bias} if source.use_bias else {}
        module = parts.Linear(*source.kernel.shape, bias=source.use_bias)
        return _with_values(module, weight=np.transpose(source.kernel), **bias)
    kind = type(source).__name__
    raise mistake("network", "of layers that have a translation", source.name, f"{library} gets none of type {kind}.")


def _is_theirs(cell, library):
    """Whether a library has these neurons; the reset of snnTorch's comes a step later in any case."""
    surrogate = cell.surrogate
    same = isinstance(surrogate, surrogates.Sigmoid) and surrogate.alpha == ALPHA and cell.reset == "soft" and cell.detach_reset
    return same and (library == "snntorch" or not cell.reset_delay)


def _neurons(cell, library, masked):
    decay, threshold = float(cell.decay), float(cell.threshold)
    if library == "spikingjelly":
        return LIBRARIES[library].lif(decay, decay_input=cell.decay_input, v_threshold=threshold)
    neurons = LIBRARIES[library].lif(beta=decay, threshold=threshold)
    neurons = OverSteps(neurons) if masked else neurons
    return nn.Sequential(Scale(1 - decay), neurons) if cell.decay_input else neurons


def _with_values(module, **values):
    """The module with the values of Keras variables or arrays."""
    with torch.no_grad():
        for name, value in values.items():
            getattr(module, name).copy_(torch.as_tensor(np.array(keras.ops.convert_to_numpy(value))))
    return module
