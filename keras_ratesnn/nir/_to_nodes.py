"""How each layer becomes a node: one function for each kind of layer."""

import dataclasses
import numbers
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_ratesnn._core import keras_internals
from keras_ratesnn._core.convolutions import padding_of
from keras_ratesnn.layer_kinds import ENCODER, NEURON, kind_of
from keras_ratesnn.layers import LeakyReadout, Recurrent, WSConv2D, WSDense
from keras_ratesnn.layers.quantized import QUANTIZED
from keras_ratesnn.nir import _layouts, _neuron_nodes
from keras_ratesnn.nir._graph_writer import convolution

_NEURONS = (
    "of neurons, NIR has "
    f"{', '.join(kind.__name__ for kind in _neuron_nodes.LAYERS)} only."
)


def refused_layer(layer, reason):
    """The error for a layer, or an operation, that NIR cannot describe."""
    return ValueError(
        "`model` must be a network that NIR can describe. Received: "
        f"layer {layer.name!r} of type {type(layer).__name__}: {reason}"
    )


def check(layer):
    """Raises ValueError if NIR cannot describe a layer, whatever its inputs are; the
    message names it."""
    if getattr(layer, "activation", None) not in (None, keras.activations.linear):
        raise refused_layer(
            layer,
            "NIR has no activation functions. Use a neuron layer, or apply the "
            "function to the outputs.",
        )
    if getattr(layer, "quantization_mode", None):
        raise refused_layer(
            layer,
            "its weights are quantized, and NIR has no quantized layers. Export it "
            "before `quantize`.",
        )
    if type(layer) not in _TABLE and not _is_sum(layer):
        raise refused_layer(layer, _why_not(layer))


def add_layer(writer, layer, signals):
    """Adds one call of a layer to a graph.

    Args:
        writer: A `GraphWriter`.
        layer: A Keras layer or operation.
        signals: List of `LayerOutput`, its inputs.

    Returns:
        A `LayerOutput`, its output.

    Raises:
        ValueError: If NIR cannot describe the layer; the message names it.
    """
    check(layer)
    if _is_sum(layer):
        return _add(writer, layer, signals)
    if len(signals) != 1:
        raise refused_layer(layer, "it takes several inputs, or a mask.")
    return _TABLE[type(layer)](writer, layer, signals[0])


def data_format_of(operations):
    """The `data_format` of the layers of a network, which must be the same for all.

    Args:
        operations: Iterable of layers.

    Returns:
        String; `None` if there is no convolution, pooling or padding.
    """
    found = None
    for layer in operations:
        if type(layer) in _SPATIAL:
            if found is not None and layer.data_format != found:
                raise refused_layer(
                    layer,
                    f"its data_format is {layer.data_format!r}, that of layers before "
                    f"it {found!r}.",
                )
            found = layer.data_format
    return found


def _is_sum(layer):
    # `x + y` is a node of keras.ops.
    return (
        type(layer) is layers.Add or keras_internals.name_of_node(type(layer)) == "Add"
    )


def _why_not(layer):
    role = kind_of(layer).role
    if role == ENCODER:
        return (
            "NIR has no encoders. Export the network after it, and encode the "
            "inputs where it runs."
        )
    if role == NEURON:
        if layer.cell.levels > 1:
            return (
                f"it emits up to {layer.cell.levels} spikes in a step, and the "
                "neurons of NIR at most one."
            )
        return _NEURONS
    if kind_of(layer).normalization is not None:
        return (
            "NIR has no normalisation, and this one could not be folded into a "
            "layer before it."
        )
    return "NIR has no node for it."


def _add(writer, layer, signals):
    if len(signals) < 2 or len({signal.shape for signal in signals}) > 1:
        raise refused_layer(
            layer, "in NIR only signals of the same shape can be added."
        )
    first, *others = (signal.order for signal in signals)
    if not all(np.array_equal(first, order) for order in others):
        raise refused_layer(
            layer,
            "it adds flattened and other features, which NIR has in another order.",
        )
    return writer.sum(layer.name, signals)


def _neurons(writer, layer, signal):
    if np.any(layer.initial_membrane):
        raise refused_layer(
            layer,
            "in NIR neurons start at rest, and these with "
            f"initial_membrane={layer.initial_membrane}. Convert or train the network "
            "with neurons that start at 0.",
        )
    if layer.reset_delay:
        raise refused_layer(
            layer,
            "in NIR a spike resets its neuron at once, and here one step later "
            "(reset_delay=True). Train the network with reset_delay=False.",
        )
    signal = writer.plain(signal, layer.name)
    node = _neuron_nodes.node_of(
        writer.nir, layer, _of_neurons(writer, signal), writer.dt
    )
    return writer.add(layer.name, node, signal, signal.shape, signal.order)


def _of_neurons(writer, signal):
    """A function of a number, or of a parameter as a step uses it: the values of all
    neurons, in NIR's order, in float64."""

    def full(value):
        values = np.asarray(ops.convert_to_numpy(value), "float64")
        if not values.ndim:
            return np.full(signal.shape, values)
        # Its first axis is that of the batch.
        data_format = writer.format_of(signal.shape)
        values = np.broadcast_to(
            values[0], _layouts.shape_from_nir(signal.shape, data_format)
        )
        values = np.array(_layouts.to_nir(values, data_format))
        return values if signal.order is None else values[np.argsort(signal.order)]

    return full


def _readout(writer, layer, signal):
    signal = writer.plain(signal, layer.name)
    leaks = np.asarray(layer.decay) < 1.0
    if not np.all(leaks) and (np.any(leaks) or layer.has_current):
        raise refused_layer(
            layer,
            "NIR has no membrane without a leak that has a synaptic current, or is "
            "among others that leak. Use decays below 1.",
        )
    node = _neuron_nodes.readout_node(
        writer.nir, layer, _of_neurons(writer, signal), writer.dt
    )
    return writer.add(layer.name, node, signal, signal.shape, signal.order)


def _recurrent(writer, layer, signal):
    if type(layer.neuron) not in _neuron_nodes.LAYERS_OF_CELLS:
        raise refused_layer(
            layer, f"it has neurons of {type(layer.neuron).__name__}, and {_NEURONS}"
        )
    if type(layer.synapse) is not layers.Dense or signal.order is not None:
        raise refused_layer(
            layer,
            "spikes can come back through a Dense layer only, to neurons without "
            "Flatten before them.",
        )
    neurons = _neurons(
        writer, _neuron_nodes.layer_of_cell(layer.neuron, layer.name), signal
    )
    back = add_layer(writer, layer.synapse, [neurons])
    # The edge back to the neurons is that of the next step.
    writer.edges += [(back.sources[0], neurons.sources[0])]
    return neurons


def _dense(writer, layer, signal):
    if len(signal.shape) != 1:
        raise refused_layer(
            layer,
            f"its input has the axes {signal.shape} (channels first), and NIR wants "
            "one. Flatten it.",
        )
    weight = _kernel(layer).T
    bias = _bias(layer, weight) + signal.offset * weight.sum(axis=1)
    weight = weight * signal.scale
    if signal.order is not None:
        weight = weight[:, np.argsort(signal.order)]
    weight, bias = _stored(layer, weight), _stored(layer, bias)
    plain = not layer.use_bias and signal.offset == 0.0
    node = writer.nir.Linear(weight) if plain else writer.nir.Affine(weight, bias)
    return writer.add(layer.name, node, signal, bias.shape)


def _convolution(writer, layer, signal):
    return _add_convolution(
        writer, layer, signal, _layouts.kernel_to_nir(_kernel(layer)), layer.groups
    )


def _depthwise(writer, layer, signal):
    kernel = np.moveaxis(_kernel(layer), (-2, -1), (0, 1))
    return _add_convolution(
        writer, layer, signal, kernel.reshape(-1, 1, *kernel.shape[2:]), kernel.shape[0]
    )


def _add_convolution(writer, layer, signal, kernel, groups):
    strides, dilation = (
        _each(value, kernel.ndim - 2) for value in (layer.strides, layer.dilation_rate)
    )
    around_it = signal.padding
    around = around_it or ((0, 0),) * (kernel.ndim - 2)
    sizes = [
        size + sum(zeros) for size, zeros in zip(signal.shape[1:], around, strict=True)
    ]
    own = padding_of(layer.padding, sizes, kernel.shape[2:], strides, dilation)
    padding = [(a + c, b + d) for (a, b), (c, d) in zip(around, own, strict=True)]
    if signal.offset != 0.0 and np.any(padding):
        # The zeros get no offset.
        signal = writer.plain(dataclasses.replace(signal, padding=()), layer.name)
    bias = _bias(layer, kernel) + signal.offset * kernel.sum(
        axis=tuple(range(1, kernel.ndim))
    )
    weight, padding, dilation = _layouts.with_equal_padding(
        kernel * signal.scale, padding, dilation
    )
    metadata: dict[str, Any] = (
        {} if layer.use_bias or signal.offset else {"use_bias": False}
    )
    if weight.shape != kernel.shape and not around_it:
        metadata |= {
            "padding": layer.padding,
            "kernel_size": np.array(kernel.shape[2:]),
        }
    weight, bias = _stored(layer, weight), _stored(layer, bias)
    node = convolution(
        writer.nir,
        signal.shape[1:],
        weight,
        strides,
        padding,
        dilation,
        groups,
        bias,
        metadata,
    )
    space = _layouts.convolved(
        signal.shape[1:], weight.shape[2:], strides, padding, dilation
    )
    return writer.add(layer.name, node, signal, (weight.shape[0], *space))


def _average_pooling(writer, layer, signal):
    pool, strides = _each(layer.pool_size, 2), _each(layer.strides, 2)
    own = padding_of(layer.padding, signal.shape[1:], pool, strides, (1, 1))
    if signal.padding or np.any(own):
        raise refused_layer(
            layer,
            "it pools at the edges, which NIR does not define. Use a size that divides "
            "that of the input.",
        )
    return _add_pooling(writer, layer, signal, pool, strides)


def _global_average_pooling(writer, layer, signal):
    if signal.padding:
        raise refused_layer(
            layer, "it pools zeros around its input, which NIR does not define."
        )
    pooled = _add_pooling(writer, layer, signal, signal.shape[1:], signal.shape[1:])
    return (
        pooled
        if layer.keepdims
        else _add_flatten(writer, f"{layer.name}_flatten", pooled, None)
    )


def _add_pooling(writer, layer, signal, pool, strides):
    node = writer.nir.AvgPool2d(
        kernel_size=np.array(pool), stride=np.array(strides), padding=np.array((0, 0))
    )
    space = _layouts.convolved(signal.shape[1:], pool, strides, (0, 0), (1, 1))
    output = writer.add(layer.name, node, signal, (signal.shape[0], *space))
    # The mean commutes with a factor and an offset.
    return dataclasses.replace(output, scale=signal.scale, offset=signal.offset)


def _zero_padding(writer, layer, signal):
    if signal.offset != 0.0:
        signal = writer.plain(signal, layer.name)
    padding = (
        layer.padding
        if isinstance(layer.padding[0], tuple)
        else (tuple(layer.padding),)
    )
    before = signal.padding or ((0, 0),) * len(padding)
    both = tuple((a + c, b + d) for (a, b), (c, d) in zip(before, padding, strict=True))
    return dataclasses.replace(signal, padding=both)


def _rescaling(writer, layer, signal):
    if not (
        isinstance(layer.scale, numbers.Real) and isinstance(layer.offset, numbers.Real)
    ):
        raise refused_layer(layer, "its scale and offset must be numbers, not lists.")
    if layer.offset and signal.padding:
        raise refused_layer(
            layer,
            "it adds to zeros around its input. Put the ZeroPadding layer after it.",
        )
    scale, offset = float(layer.scale), float(layer.offset)
    return dataclasses.replace(
        signal, scale=signal.scale * scale, offset=signal.offset * scale + offset
    )


def _flatten(writer, layer, signal):
    if signal.padding:
        raise refused_layer(
            layer, "it flattens zeros around its input. In NIR only convolutions pad."
        )
    if len(signal.shape) == 1:
        return signal
    moved = layer.data_format == _layouts.CHANNELS_FIRST
    order = _layouts.order_of_flattened(
        signal.shape, writer.format_of(signal.shape), moved
    )
    return _add_flatten(writer, layer.name, signal, order)


def _add_flatten(writer, name, signal, order):
    # Counted from the end, the axes are the same with a batch axis and without.
    node = writer.nir.Flatten(
        input_type=np.array(signal.shape), start_dim=-len(signal.shape), end_dim=-1
    )
    output = writer.add(name, node, signal, (np.prod(signal.shape),), order)
    return dataclasses.replace(output, scale=signal.scale, offset=signal.offset)


def _unchanged(writer, layer, signal):
    """In inference it does nothing."""
    return signal


def _kernel(layer):
    """The kernel that a call uses, in float64."""
    kernel = layer.kernel
    if isinstance(layer, (WSConv2D, WSDense)):
        kernel = layer.standardized_kernel()
    return ops.convert_to_numpy(kernel).astype("float64")


def _bias(layer, weight):
    return (
        ops.convert_to_numpy(layer.bias).astype("float64")
        if layer.use_bias
        else np.zeros(len(weight))
    )


def _stored(layer, array):
    """Weights are stored in float32, or float64 if the layer has such."""
    return array.astype("float64" if layer.variable_dtype == "float64" else "float32")


def _each(value, axes):
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * axes


_SPATIAL = {
    **dict.fromkeys((layers.Conv1D, layers.Conv2D, WSConv2D), _convolution),
    **dict.fromkeys((layers.DepthwiseConv1D, layers.DepthwiseConv2D), _depthwise),
    layers.AveragePooling2D: _average_pooling,
    layers.GlobalAveragePooling2D: _global_average_pooling,
    **dict.fromkeys((layers.ZeroPadding1D, layers.ZeroPadding2D), _zero_padding),
}
_SPATIAL |= {
    QUANTIZED[layer]: function
    for layer, function in _SPATIAL.items()
    if layer in QUANTIZED
}
_ONLY_IN_TRAINING = (
    *(
        layers.Identity,
        layers.ActivityRegularization,
        layers.Dropout,
        layers.SpatialDropout1D,
        layers.SpatialDropout2D,
    ),
    *(layers.GaussianDropout, layers.AlphaDropout, layers.GaussianNoise),
)
_TABLE = {
    **_SPATIAL,
    **dict.fromkeys(_neuron_nodes.LAYERS, _neurons),
    LeakyReadout: _readout,
    Recurrent: _recurrent,
    **dict.fromkeys(
        (layers.Dense, WSDense, QUANTIZED[layers.Dense], QUANTIZED[WSDense]), _dense
    ),
    layers.Flatten: _flatten,
    layers.Rescaling: _rescaling,
    **dict.fromkeys(_ONLY_IN_TRAINING, _unchanged),
}
