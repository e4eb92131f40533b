"""What flows along the edges while a network is exported, and the NIR graph that
grows."""

import collections
import dataclasses

import keras
import numpy as np

from keras_ratesnn._core import names
from keras_ratesnn.nir import _layouts

RESERVED = ("input", "output")


@dataclasses.dataclass(frozen=True)
class LayerOutput:
    """The output of a layer, as NIR has it.

    Args:
        sources: Tuple of strings, the nodes whose outputs it is the sum of.
        shape: Tuple, its shape in NIR, channels first, without the batch axis.
        order: Integer array, where each of our features is in NIR's order, if it is
            flattened and the orders differ. Defaults to `None`.
        scale: Float, a factor that the sources still lack, which the next layer may
            take over. Defaults to `1.0`.
        offset: Float, what is added after the factor. Defaults to `0.0`.
        padding: Tuple of `(before, after)` for each axis but the channels: zeros that
            the sources still lack, after factor and offset. Defaults to `()`, none.
    """

    sources: tuple[str, ...]
    shape: tuple[int, ...]
    order: np.ndarray | None = None
    scale: float = 1.0
    offset: float = 0.0
    padding: tuple[tuple[int, int], ...] = ()


class GraphWriter:
    """Nodes and edges of a NIR graph.

    Args:
        nir: The package.
        data_format: String, how the network has its signals; `None` if no layer says
            it.
        dt: Float, the length of a time step in seconds.
    """

    def __init__(self, nir, data_format, dt):
        self.nir = nir
        self.data_format = data_format
        self.dt = dt
        self.nodes = {}
        self.edges = []

    def format_of(self, shape):
        """How the network has a signal of this shape. Where no layer says it, images
        are as Keras is set."""
        return _layouts.format_of(
            shape, self.data_format, keras.config.image_data_format()
        )

    def input(self, shape):
        self.nodes["input"] = self.nir.Input(input_type=np.array(shape))
        return LayerOutput(("input",), tuple(shape))

    def output(self, signal):
        signal = self.plain(signal, "output")
        self.nodes["output"] = self.nir.Output(output_type=np.array(signal.shape))
        self.edges += [(source, "output") for source in signal.sources]

    def add(self, name, node, signal, shape, order=None):
        """Adds a node that takes `signal`, and returns its output, a signal of this
        shape."""
        # HDF5 takes a slash as a group.
        name = names.free(name.replace("/", "_"), {*RESERVED, *self.nodes})
        self.nodes[name] = node
        self.edges += [(source, name) for source in signal.sources]
        return LayerOutput((name,), tuple(int(size) for size in shape), order)

    def sum(self, name, signals):
        """The sum of signals of the same shape; the edges of what takes it are the
        addition."""
        signals = [self.plain(signal, name) for signal in signals]
        sources = []
        for source, times in collections.Counter(
            source for signal in signals for source in signal.sources
        ).items():
            if times > 1:  # An edge is there once.
                (source,) = self._scaled(
                    f"{name}_{source}", LayerOutput((source,), signals[0].shape), times
                ).sources
            sources.append(source)
        return dataclasses.replace(signals[0], sources=tuple(sources))

    def plain(self, signal, name):
        """The signal with its factor and offset as a node, if it has one, for a node
        that cannot take them over.

        Args:
            signal: A `LayerOutput`.
            name: String, the name of the layer that takes it.
        """
        if signal.padding:
            raise ValueError(
                "`model` must be a network that NIR can describe. Received: zeros "
                f"around the input of layer {name!r}. In NIR only convolutions pad. "
                "Put the ZeroPadding layer directly before a convolution."
            )
        if signal.offset != 0.0:
            return self._shifted(f"{name}_rescaling", signal)
        return (
            self._scaled(f"{name}_rescaling", signal, signal.scale)
            if signal.scale != 1.0
            else signal
        )

    def _scaled(self, name, signal, factor):
        return self.add(
            name,
            self.nir.Scale(scale=np.full(signal.shape, factor)),
            signal,
            signal.shape,
            signal.order,
        )

    def _shifted(self, name, signal):
        """A factor and an offset are a convolution of each place with itself, or an
        affine layer."""
        channels, *space = signal.shape
        weight = signal.scale * np.eye(channels)
        bias = np.full(channels, signal.offset)
        if not space:
            return self.add(
                name, self.nir.Affine(weight, bias), signal, signal.shape, signal.order
            )
        weight = weight.reshape(channels, channels, *(1 for _ in space))
        node = convolution(
            self.nir,
            space,
            weight,
            (1,) * len(space),
            (0,) * len(space),
            (1,) * len(space),
            1,
            bias,
        )
        return self.add(name, node, signal, signal.shape)


def convolution(
    nir, space, weight, stride, padding, dilation, groups, bias, metadata=None
):
    """The node of a convolution over one or two axes; where there is one, NIR has
    numbers instead of tuples."""
    if len(space) == 2:
        arguments = (tuple(space), weight, stride, padding, dilation, groups, bias)
        return nir.Conv2d(*arguments, metadata=metadata or {})
    return nir.Conv1d(
        space[0],
        weight,
        stride[0],
        padding[0],
        dilation[0],
        groups,
        bias,
        metadata=metadata or {},
    )
