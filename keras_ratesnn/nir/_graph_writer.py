"""A lowered network as a NIR graph: one function for each kind of node."""

import collections
import dataclasses
from typing import Any

import numpy as np

from keras_ratesnn import _lowered
from keras_ratesnn._core import names, time_axis
from keras_ratesnn._core.convolutions import padding_of
from keras_ratesnn._lowered import nodes
from keras_ratesnn._lowered.neurons import LAYERS
from keras_ratesnn._lowered.nodes import Wire
from keras_ratesnn.nir import _continuous_time, _layouts

REFUSALS = _lowered.Refusals("NIR can describe", "nir")


class GraphWriter:
    """Nodes and edges of a NIR graph.

    Args:
        nir: The package.
        lowered: `_lowered.lowering.Lowered`.
        dt: Float, the length of a time step in seconds.
    """

    def __init__(self, nir, lowered, dt):
        self.nir, self.lowered, self.dt = nir, lowered, dt
        self.nodes, self.edges = {}, []
        # By lowered nodes: the names of the NIR nodes of which one is the sum.
        self.sources = {}

    def run(self):
        """Writes the `NIRGraph`."""
        for node in self.lowered.nodes:
            self.sources[node] = self.added(node)
        output = self.lowered.output
        if output.order is not None or self.order_of(output.node) is not None:
            raise ValueError(
                "`model` must not end with flattened channels_last features, which NIR "
                "has in another order. Received: an output of shape "
                f"{output.shape}. Let it end before Flatten, or with a Dense layer."
            )
        sources = self.plain(output, "output")
        shape = np.array(self.shape(output.node))
        self.nodes["output"] = self.nir.Output(output_type=shape)
        self.edges += [(source, "output") for source in sources]
        # The type check of nir 1.0.8 is wrong about grouped convolutions and kernels
        # that are not square.
        return self.nir.NIRGraph(self.nodes, self.edges, type_check=False)

    def shape(self, node):
        """The shape of a node in NIR."""
        if self.lowered.is_image(node.shape):
            return node.shape[-1], *node.shape[:-1]
        return node.shape

    def space(self, node, layer):
        """The axes of what a layer takes or gives without those of the channels, which
        NIR has first."""
        *space, _ = node.shape
        if space and not self.lowered.is_image(node.shape):
            raise REFUSALS.error(
                layer,
                f"its signal has the axes {node.shape}, of which NIR would take the "
                "first as channels. Flatten it, or use Conv1D.",
            )
        return tuple(space)

    def order_of(self, node):
        """Which of our features is at each place of NIR's; `None` if the order is the
        same."""
        if node.image is None or not self.lowered.is_image(node.image):
            return None
        shape = (node.image[-1], *node.image[:-1])
        order = _layouts.order_of_flattened(shape, _layouts.CHANNELS_LAST)
        return None if order is None else np.argsort(order)

    def full(self, values, node):
        """A parameter for each element of a node, as NIR has them."""
        values, order = np.broadcast_to(values, node.shape), self.order_of(node)
        if self.lowered.is_image(node.shape):
            values = np.moveaxis(values, -1, 0)
        return np.array(values if order is None else values[order], "float64")

    def add(self, name, made, sources):
        """Adds a node of NIR's, and returns its name as sources."""
        # HDF5 takes a slash as a group.
        name = names.free(name.replace("/", "_"), {"input", "output", *self.nodes})
        self.nodes[name] = made
        self.edges += [(source, name) for source in sources]
        return (name,)

    def added(self, node):
        """The sources of a lowered node that is added."""
        rule = _RULES.get(type(node))
        if rule is None or getattr(node, "how", "mean") != "mean":
            remedy = (
                "Pool by AveragePooling2D or GlobalAveragePooling2D."
                if rule
                else "Use others, or leave it outside."
            )
            raise REFUSALS.error(node.layer, f"NIR has no node for it. {remedy}")
        return rule(self, node)

    def plain(self, wire, name):
        """The sources of a wire, for a node that cannot take its scale and offset over:
        they become a node."""
        sources = self.sources[wire.node]
        if wire.is_plain:
            return sources
        name = f"{name}_rescaling"
        if not wire.by_channel and not wire.offset:
            made = self.nir.Scale(scale=self.full(wire.scale, wire.node))
            return self.add(name, made, sources)
        # Scale and offset are a convolution of one place, or an affine layer.
        space, channels = self.space(wire.node, wire.by), wire.shape[-1]
        if not space:
            scale = self.full(wire.scale, wire.node)
            offset = self.full(wire.offset, wire.node)
            return self.add(name, self.nir.Affine(np.diag(scale), offset), sources)
        scale = np.broadcast_to(wire.scale, channels)
        offset = np.broadcast_to(wire.offset, channels)
        ones, no_padding = (1,) * len(space), (0,) * len(space)
        weight = np.diag(scale).reshape(channels, channels, *ones)
        made = self.convolution(space, weight, ones, no_padding, ones, 1, offset)
        return self.add(name, made, sources)

    def convolution(
        self, space, weight, stride, padding, dilation, groups, bias, metadata=None
    ):
        """The node of a convolution over one or two axes; where there is one, NIR has
        numbers instead of tuples."""
        metadata = metadata or {}
        if len(space) == 2:
            arguments = (tuple(space), weight, stride, padding, dilation, groups, bias)
            return self.nir.Conv2d(*arguments, metadata=metadata)
        arguments = (space[0], weight, stride[0], padding[0], dilation[0], groups, bias)
        return self.nir.Conv1d(*arguments, metadata=metadata)

    def add_input(self, node):
        self.nodes["input"] = self.nir.Input(input_type=np.array(self.shape(node)))
        return ("input",)

    def add_affine(self, node):
        (wire,) = node.inputs
        if wire.by_channel or (np.any(wire.offset) and np.any(node.padding)):
            # The zeros of the padding get no offset, which the weights would give them.
            sources, wire = self.plain(wire, node.name), Wire(wire.node)
        else:
            sources = self.sources[wire.node]
        kernel = np.moveaxis(node.kernel, (-1, -2), (0, 1))
        bias = 0.0 if node.bias is None else node.bias
        bias = wire.offset * kernel.sum(axis=tuple(range(1, kernel.ndim))) + bias
        use_bias = node.bias is not None or wire.offset != 0.0
        weight, order = kernel * wire.scale, self.order_of(wire.node)
        if order is not None:
            weight = weight[:, order]
        weight, bias = _stored(node.layer, weight), _stored(node.layer, bias)
        if node.window:
            made = self.windowed(node, weight, bias, use_bias)
        elif use_bias:
            made = self.nir.Affine(weight, bias)
        else:
            made = self.nir.Linear(weight)
        return self.add(node.name, made, sources)

    def windowed(self, node, kernel, bias, use_bias):
        """The node of an affine node that is a convolution."""
        weight, padding, dilation = _layouts.with_equal_padding(
            kernel, node.padding, node.dilation
        )
        metadata: dict[str, Any] = {} if use_bias else {"use_bias": False}
        if weight.shape != kernel.shape and self.pads_itself(node):
            metadata["padding"] = node.layer.padding
            metadata["kernel_size"] = np.array(node.window)
        return self.convolution(
            self.space(node.before, node.layer),
            weight,
            node.stride,
            padding,
            dilation,
            node.groups,
            bias,
            metadata,
        )

    def pads_itself(self, node):
        """Whether all zeros around the input of a convolution are its own."""
        own = padding_of(
            node.layer.padding,
            node.before.shape[:-1],
            node.window,
            node.stride,
            node.dilation,
        )
        return tuple(map(tuple, own)) == node.padding

    def add_pool(self, node):
        if np.any(node.padding):
            raise REFUSALS.error(
                node.layer,
                "it pools at the edges, which NIR does not define. Use a size that "
                "divides that of the input.",
            )
        size = np.array(node.window)
        stride = size if node.whole else np.array(node.stride)
        made = self.nir.AvgPool2d(
            kernel_size=size, stride=stride, padding=np.array((0, 0))
        )
        return self.add(node.name, made, self.plain(node.inputs[0], node.name))

    def add_flatten(self, node):
        before = node.before
        # Counted from the end, the axes are the same with a batch axis and without.
        made = self.nir.Flatten(
            input_type=np.array(self.shape(before)),
            start_dim=-len(before.shape),
            end_dim=-1,
        )
        sources = self.plain(node.inputs[0], node.name)
        is_of_pooling = before.layer is node.layer
        name = f"{node.name}_flatten" if is_of_pooling else node.name
        return self.add(name, made, sources)

    def add_sum(self, node):
        """The sum of signals; the edges of what takes it are the addition."""
        counts: collections.Counter[str] = collections.Counter()
        for wire in node.inputs:
            counts.update(self.plain(wire, node.name))
        sources = []
        for source, times in counts.items():
            if times > 1:  # An edge is there once.
                scale = self.nir.Scale(scale=np.full(self.shape(node), times))
                name = f"{node.name}_{source}_rescaling"
                (source,) = self.add(name, scale, (source,))
            sources.append(source)
        return tuple(sources)

    def add_neurons(self, node):
        _check_neurons(node)
        dtype = time_axis.accumulation_dtype(node.layer.compute_dtype)
        threshold = self.full(node.threshold, node)
        arguments = {
            "v_threshold": _continuous_time.threshold_to_nir(threshold, dtype),
            "v_reset": self.full(node.v_reset, node),
            "metadata": _metadata(node, self.dt),
        }
        kind = node.cell.targets.nir
        if kind == "IF":
            arguments["r"] = self.full(1.0 / self.dt, node)
        else:
            arguments |= self.leak(node)
        made = getattr(self.nir, kind)(**arguments)
        sources = self.add(node.name, made, self.plain(node.inputs[0], node.name))
        if node.feedback is not None:
            self.sources[node] = sources
            feedback = dataclasses.replace(node.feedback, inputs=(Wire(node),))
            (back,) = self.add_affine(feedback)
            # The edge back to the neurons is that of the next step.
            self.edges.append((back, *sources))
        return sources

    def add_readout(self, node):
        leaks = np.asarray(node.decay) < 1.0
        if not np.all(leaks) and (np.any(leaks) or node.synaptic_decay is not None):
            raise REFUSALS.error(
                node.layer,
                "NIR has no membrane without a leak that has a synaptic current, or is "
                "among others that leak. Use decays below 1.",
            )
        metadata = {
            "layer": type(node.layer).__name__,
            "value": node.layer.value,
            "decay_input": node.decay_input,
            "dt": self.dt,
            "learn_decay": node.layer.learn_decay,
            "learn_synaptic_decay": node.layer.learn_synaptic_decay,
        }
        if not np.any(leaks):
            made = self.nir.I(r=self.full(1.0 / self.dt, node), metadata=metadata)
        else:
            kind = self.nir.LI if node.synaptic_decay is None else self.nir.CubaLI
            made = kind(**self.leak(node), metadata=metadata)
        return self.add(node.name, made, self.plain(node.inputs[0], node.name))

    def leak(self, node):
        """The parameters of a membrane that leaks, and of its synaptic current if it
        has one."""
        tau = _continuous_time.time_constant(self.full(node.decay, node), self.dt)
        resistance = self.full(1.0, node) if node.decay_input else tau / self.dt
        leak = {"r": resistance, "v_leak": self.full(0.0, node)}
        if node.synaptic_decay is None:
            return {"tau": tau, **leak}
        synaptic_decay = self.full(node.synaptic_decay, node)
        tau_syn = _continuous_time.time_constant(synaptic_decay, self.dt)
        return {"tau_mem": tau, "tau_syn": tau_syn, "w_in": tau_syn / self.dt, **leak}


def _check_neurons(node):
    """Raises ValueError for neurons that NIR does not have."""
    if np.any(node.initial_membrane):
        raise REFUSALS.error(
            node.layer,
            "in NIR neurons start at rest, and these with "
            f"initial_membrane={node.initial_membrane}. Convert or train the network "
            "with neurons that start at 0.",
        )
    if node.reset_delay:
        raise REFUSALS.error(
            node.layer,
            "in NIR a spike resets its neuron at once, and here one step later "
            "(reset_delay=True). Train the network with reset_delay=False.",
        )


_IN_METADATA = (
    "reset",
    "reset_delay",
    "detach_reset",
    "learn_threshold",
    "learn_decay",
    "learn_synaptic_decay",
    "per_channel",
)


def _metadata(node, dt):
    """The facts that a node of neurons lacks: how they are reset, the time step, and
    what matters in training."""
    cell = node.cell
    names = [name for name in _IN_METADATA if name in cell.fixed_arguments]
    return {
        **{name: getattr(cell, name) for name in names},
        "layer": LAYERS[type(cell)].__name__,
        "decay_input": cell.decay_input,
        "dt": dt,
        "surrogate": repr(cell.surrogate),
    }


def _stored(layer, array):
    """Weights are stored in float32, or float64 if the layer has such."""
    return array.astype("float64" if layer.variable_dtype == "float64" else "float32")


_RULES: dict[type, Any] = {
    nodes.InputNode: GraphWriter.add_input,
    nodes.AffineNode: GraphWriter.add_affine,
    nodes.PoolNode: GraphWriter.add_pool,
    nodes.FlattenNode: GraphWriter.add_flatten,
    nodes.AddNode: GraphWriter.add_sum,
    nodes.NeuronNode: GraphWriter.add_neurons,
    nodes.ReadoutNode: GraphWriter.add_readout,
}
"""How each kind of node is written."""
