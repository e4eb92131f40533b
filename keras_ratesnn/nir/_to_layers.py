"""How each node becomes a layer: one function for each type of node."""

import dataclasses
import re
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_ratesnn._core import names
from keras_ratesnn._core.convolutions import convolved, padding_of
from keras_ratesnn.layers import Recurrent
from keras_ratesnn.nir import _layouts
from keras_ratesnn.nir._continuous_time import shortest
from keras_ratesnn.nir._neuron_nodes import NODES, READOUT_NODES

_LARGEST = 2**31

SPATIAL = ("Conv1d", "Conv2d", "AvgPool2d", "SumPool2d")
"""The types of nodes by which the first axis of a signal is that of its channels."""


@dataclasses.dataclass(frozen=True)
class NodeOutput:
    """The output of a node.

    Args:
        tensor: A Keras tensor.
        shape: Tuple, its shape in NIR, channels first, without the batch axis.
        flattened: Tuple, the shape that it had before it was flattened; `None` if it
            was not.
        data_format: String, how the network has its signals.
    """

    tensor: Any
    shape: tuple[int, ...]
    flattened: tuple[int, ...] | None
    data_format: str

    @property
    def has_other_order(self):
        """Whether our features are in another order than NIR's."""
        return (
            self.flattened is not None
            and self.flattened[0] > 1
            and np.prod(self.flattened[1:]) > 1
        )

    def order(self):
        """Where each of our features is in NIR's order, an array as large as the
        signal; `None` if the orders are the same."""
        if not self.has_other_order:
            return None
        return _layouts.order_of_flattened(self.flattened, self.data_format)


class LayerMaker:
    """Makes the layers of a network, one node after another.

    Args:
        neurons: A `NeuronReader`.
        data_format: String, how the network has images.
        spatial: Boolean, whether the file has nodes of the types `SPATIAL`.
    """

    def __init__(self, neurons, data_format, spatial):
        self.neurons = neurons
        self.data_format = data_format
        self.spatial = spatial
        self.names = set()

    def input(self, node):
        shape = self._checked(node, node.values["shape"])
        data_format = _layouts.format_of(
            shape, self.data_format if self.spatial else None, self.data_format
        )
        tensor = keras.Input(
            _layouts.shape_from_nir(shape, data_format), name=self._name(node)
        )
        return NodeOutput(tensor, shape, None, data_format)

    def output_of(self, node, signals, feedback=None):
        """The output of a node that takes the sum of signals; `feedback` is the node by
        which that of neurons comes back."""
        first = signals[0]
        for signal in signals:
            if (signal.shape, signal.flattened) != (first.shape, first.flattened):
                raise node.refused(
                    f"its inputs have the shapes {first.shape} and {signal.shape}, and "
                    "cannot be added."
                )
        if len(signals) > 1:
            total = layers.Add()([signal.tensor for signal in signals])
            first = dataclasses.replace(first, tensor=total)
        if feedback is not None:
            return self.neurons_of(node, first, feedback)
        return _TABLE[node.type](self, node, first)

    def _name(self, node, ending=""):
        """The name of a node as a layer may have it, PyTorch's too."""
        wanted = re.sub(r"\W", "_", node.name, flags=re.ASCII).strip("_")[:64] or "node"
        return names.take(wanted + ending, self.names)

    def _checked(self, node, shape):
        """The shape of a signal; raises an error if no computer could have it."""
        if min(shape) < 1 or np.prod(shape, dtype="float64") > _LARGEST:
            raise node.refused(f"its output would have the shape {tuple(shape)}.")
        return tuple(int(size) for size in shape)

    def hand_on(self, node, signal):
        """Inputs and outputs of graphs: they only say a shape."""
        if node.values["shape"] != signal.shape:
            raise node.refused(
                f"it declares the shape {node.values['shape']}, but takes "
                f"{signal.shape} (channels first)."
            )
        return signal

    def neurons_of(self, node, signal, feedback=None):
        layer, decays = self.neurons.layer_of(
            node, signal, self._name(node), recurrent=feedback is not None
        )
        cell = layer.cell
        if feedback is not None:
            layer = self._recurrent(layer, signal, feedback)
        tensor = layer(signal.tensor)
        if feedback is not None:
            layer.synapse.set_weights(self._weights_back(feedback))
        if decays is not None:
            logits = cell.decay_logit
            logits.assign(np.reshape(np.log(decays) - np.log1p(-decays), logits.shape))
        return dataclasses.replace(signal, tensor=tensor)

    def readout_of(self, node, signal):
        layer, scale, offset = self.neurons.readout_of(node, signal, self._name(node))
        tensor = layer(signal.tensor)
        if (scale, offset) != (1.0, 0.0):
            tensor = layers.Rescaling(scale, offset, name=self._name(node, "_scale"))(
                tensor
            )
        return dataclasses.replace(signal, tensor=tensor)

    def _recurrent(self, layer, signal, feedback):
        weight = feedback.values["weight"]
        if (
            len(signal.shape) != 1
            or signal.has_other_order
            or weight.shape != (*signal.shape, *signal.shape)
        ):
            raise feedback.refused(
                f"its weights have the shape {weight.shape}, but the neurons from and "
                f"to which it leads {signal.shape} (channels first). Neurons must be "
                "on one axis, without Flatten before them."
            )
        use_bias = len(self._weights_back(feedback)) == 2
        return Recurrent(
            layer,
            layers.Dense(len(weight), use_bias=use_bias, name=self._name(feedback)),
            name=layer.name,
        )

    def _weights_back(self, feedback):
        weight = feedback.values["weight"]
        bias = self._bias(feedback, len(weight)) if feedback.type == "Affine" else None
        return self._finite(feedback, weight.T, bias)

    def dense(self, node, signal):
        weight = node.values["weight"]
        if weight.ndim != 2 or signal.shape != weight.shape[1:]:
            raise node.refused(
                f"its weights have the shape {weight.shape}, but its input has the "
                f"shape {signal.shape} (channels first)."
            )
        order = signal.order()
        weight = weight.T if order is None else weight.T[order]
        outputs = weight.shape[1]
        bias = self._bias(node, outputs) if node.type == "Affine" else None
        layer = layers.Dense(outputs, use_bias=bias is not None, name=self._name(node))
        return self._weighted(node, signal, layer, weight, bias, (outputs,))

    def convolution(self, node, signal):
        weight = node.values["weight"]
        axes = {"Conv1d": 1, "Conv2d": 2}[node.type]
        if weight.ndim != axes + 2 or len(signal.shape) != axes + 1:
            raise node.refused(
                f"its weights have the shape {weight.shape}, but its input has the "
                f"shape {signal.shape} (channels first)."
            )
        (groups,) = self._sizes(node, "groups", 1)
        if (
            groups < 1
            or signal.shape[0] != weight.shape[1] * groups
            or weight.shape[0] % groups
            or 0 in weight.shape
        ):
            raise node.refused(
                f"its weights have the shape {weight.shape} in {groups} groups, but "
                f"its input has {signal.shape[0]} channels."
            )
        strides = self._sizes(node, "stride", axes)
        dilation = self._sizes(node, "dilation", axes)
        if (
            min(strides) < 1
            or min(dilation) < 1
            or (max(strides) > 1 and max(dilation) > 1)
        ):
            raise node.refused(
                f"Keras has no convolution with strides {strides} and dilation "
                f"{dilation}."
            )
        bias = self._bias(node, weight.shape[0])
        return self._convolution(node, signal, weight, bias, strides, dilation, groups)

    def _convolution(self, node, signal, weight, bias, strides, dilation, groups):
        space, size = signal.shape[1:], weight.shape[2:]
        zeros = self._zeros(node, space, size, strides, dilation)
        on_both_sides = list(zip(zeros, zeros, strict=True))
        sizes = convolved(space, size, strides, on_both_sides, dilation)
        shape = self._checked(node, (weight.shape[0], *sizes))
        weight, padding, zeros = self._as_keras_pads(
            node, space, weight, strides, dilation, zeros
        )
        signal = self._padded(node, signal, zeros)
        if node.metadata.get("use_bias") == 0 and not np.any(bias):
            bias = None
        arguments = {
            "kernel_size": weight.shape[2:],
            "strides": strides,
            "padding": padding,
            "dilation_rate": dilation,
            "data_format": self.data_format,
            "use_bias": bias is not None,
            "name": self._name(node),
        }
        one_axis = len(space) == 1
        # With one input channel in each of several groups.
        if groups > 1 and weight.shape[1] == 1 and len(set(strides)) == 1:
            kind = layers.DepthwiseConv1D if one_axis else layers.DepthwiseConv2D
            kernel = np.moveaxis(
                weight.reshape(groups, -1, *weight.shape[2:]), (0, 1), (-2, -1)
            )
            layer = kind(depth_multiplier=weight.shape[0] // groups, **arguments)
        else:
            kind = layers.Conv1D if one_axis else layers.Conv2D
            kernel = _layouts.kernel_from_nir(weight)
            layer = kind(weight.shape[0], groups=groups, **arguments)
        return self._weighted(node, signal, layer, kernel, bias, shape)

    def _zeros(self, node, space, size, strides, dilation):
        """How many zeros a convolution has on both sides of each axis."""
        padding = node.values["padding"]
        if padding == "valid":
            return (0,) * len(space)
        if padding == "same":
            pairs = padding_of(padding, space, size, (1,) * len(space), dilation)
            if max(strides) > 1 or any(before != after for before, after in pairs):
                raise node.refused(
                    f"it has padding 'same' with strides {strides} and a kernel of "
                    f"size {size}."
                )
            return tuple(before for before, _ in pairs)
        if isinstance(padding, str):
            raise node.refused(f"its padding is {padding!r}.")
        zeros = self._sizes(node, "padding", len(space))
        if min(zeros) < 0:
            raise node.refused(f"its padding is {zeros}.")
        return zeros

    def _as_keras_pads(self, node, space, weight, strides, dilation, zeros):
        """`(weight, padding, zeros)` by which Keras gives the same outputs: its own
        padding, or zeros to add before."""
        padding = node.metadata.get("padding", "same" if any(zeros) else "valid")
        size = node.metadata.get("kernel_size", weight.shape[2:])
        fits = len(size) == len(space) and all(
            1 <= part <= whole
            for part, whole in zip(size, weight.shape[2:], strict=True)
        )
        if fits and (padding == "same" or (padding == "causal" and len(space) == 1)):
            pairs = padding_of(padding, space, size, strides, dilation)
            kernel = _layouts.without_equal_padding(weight, pairs, size, dilation)
            if kernel is not None and zeros == tuple(map(max, pairs)):
                return kernel, padding, (0,) * len(space)
        return weight, "valid", zeros

    def _padded(self, node, signal, zeros):
        if not any(zeros):
            return signal
        channels, *space = signal.shape
        sizes = [size + 2 * more for size, more in zip(space, zeros, strict=True)]
        shape = self._checked(node, (channels, *sizes))
        arguments = {
            "data_format": self.data_format,
            "name": self._name(node, "_padding"),
        }
        if len(zeros) == 1:
            layer = layers.ZeroPadding1D(zeros[0], **arguments)
        else:
            layer = layers.ZeroPadding2D(tuple(zeros), **arguments)
        return dataclasses.replace(signal, tensor=layer(signal.tensor), shape=shape)

    def pooling(self, node, signal):
        if len(signal.shape) != 3:
            raise node.refused(
                f"its input has the shape {signal.shape}, which is no image (channels "
                "first)."
            )
        size, strides, zeros = (
            self._sizes(node, key, 2) for key in ("kernel_size", "stride", "padding")
        )
        if min(size) < 1 or min(strides) < 1 or min(zeros) < 0:
            raise node.refused(
                f"it has a kernel of size {size}, strides {strides} and padding "
                f"{zeros}."
            )
        on_both_sides = list(zip(zeros, zeros, strict=True))
        space = convolved(signal.shape[1:], size, strides, on_both_sides, (1, 1))
        shape = self._checked(node, (signal.shape[0], *space))
        signal = self._padded(node, signal, zeros)
        layer = layers.AveragePooling2D(
            size, strides, data_format=self.data_format, name=self._name(node)
        )
        tensor = layer(signal.tensor)
        if node.type == "SumPool2d":
            tensor = layers.Rescaling(
                float(np.prod(size)), name=self._name(node, "_sum")
            )(tensor)
        return dataclasses.replace(signal, tensor=tensor, shape=shape)

    def flatten(self, node, signal):
        axes = len(signal.shape)
        (start,), (end,) = (
            self._sizes(node, key, 1) for key in ("start_dim", "end_dim")
        )
        if (start if start >= 0 else start + axes, end if end >= 0 else end + axes) != (
            0,
            axes - 1,
        ):
            raise node.refused(
                f"it flattens the axes from {start} to {end} of an input of shape "
                f"{signal.shape}, without a batch axis. Only all of them can be "
                "flattened, from 0 to -1."
            )
        if axes == 1:
            return signal
        # The features stay in the order of the memory: that of NIR with channels first.
        tensor = layers.Flatten(
            data_format=_layouts.CHANNELS_LAST, name=self._name(node)
        )(signal.tensor)
        moved = signal.data_format == _layouts.CHANNELS_LAST
        return NodeOutput(
            tensor,
            (int(np.prod(signal.shape)),),
            signal.shape if moved else None,
            signal.data_format,
        )

    def scale(self, node, signal):
        scale = node.values["scale"]
        if scale.values.ndim or (
            scale.shape != signal.shape and np.prod(scale.shape) != 1
        ):
            raise node.refused(
                "its factors must be the same for all features. Put them into the "
                "weights around it."
            )
        factor = shortest(scale.values, self.neurons.dtype)
        return dataclasses.replace(
            signal,
            tensor=layers.Rescaling(factor, name=self._name(node))(signal.tensor),
        )

    def _sizes(self, node, key, axes):
        """A number for each axis."""
        values = node.values[key]
        if isinstance(values, str) or len(values) not in (1, axes):
            raise node.refused(f"its {key} is {values}, which must be {axes} numbers.")
        return values * axes if len(values) == 1 else values

    def _bias(self, node, outputs):
        bias = node.values["bias"]
        if bias.shape != (outputs,):
            raise node.refused(
                f"its bias has the shape {bias.shape}, but it has {outputs} outputs."
            )
        return bias

    def _finite(self, node, kernel, bias):
        """A list of the kernel, and of the bias if there is one, in the dtype of the
        network."""
        with np.errstate(over="ignore"):
            weights = [
                array.astype(self.neurons.dtype)
                for array in (kernel, bias)
                if array is not None
            ]
        if not all(np.all(np.isfinite(array)) for array in weights):
            raise node.refused(f"its weights are too large for {self.neurons.dtype}.")
        return weights

    def _weighted(self, node, signal, layer, kernel, bias, shape):
        """Calls a layer and sets its weights."""
        weights = self._finite(node, kernel, bias)
        tensor = layer(signal.tensor)
        layer.set_weights(weights)
        return NodeOutput(tensor, shape, None, signal.data_format)


_TABLE = {
    **dict.fromkeys(("Input", "Output"), LayerMaker.hand_on),
    **dict.fromkeys(("Affine", "Linear"), LayerMaker.dense),
    **dict.fromkeys(("Conv1d", "Conv2d"), LayerMaker.convolution),
    **dict.fromkeys(("AvgPool2d", "SumPool2d"), LayerMaker.pooling),
    "Flatten": LayerMaker.flatten,
    "Scale": LayerMaker.scale,
    **dict.fromkeys(NODES, LayerMaker.neurons_of),
    **dict.fromkeys(READOUT_NODES, LayerMaker.readout_of),
}
