"""The nodes of a lowered network, and the wires between them.

All arrays are of NumPy, weights in float64. Axes of channels are last, also where Keras
has them first; flattened features are in the order of channels last. Shapes are those
of a sample.
"""

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from keras_ratesnn._core.annotations import Sizes
from keras_ratesnn._core.convolutions import convolved

Pairs = tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Wire:
    """The input of a node: scale · y + offset of the output y of another node.

    Args:
        node: `LoweredNode`.
        scale: Float, or array `(channels,)`. Defaults to `1.0`.
        offset: Likewise. Defaults to `0.0`.
        by: The Keras layer that scaled last, for errors. Defaults to `None`.
        order: Integer array, the place of each of Keras' features of a flattened image
            in our order; `None` if both orders are the same. Rules have resolved it for
            nodes; only that of the output matters. Defaults to `None`.
        padding: Zeros around an image, while a network is lowered: nodes take none.
            Defaults to none.
    """

    node: "LoweredNode"
    scale: Any = 1.0
    offset: Any = 0.0
    by: Any = None
    order: np.ndarray | None = None
    padding: Pairs = ()

    @property
    def shape(self):
        return self.node.shape

    @property
    def by_channel(self):
        """Whether channels differ in scale or offset."""
        return bool(np.ndim(self.scale) or np.ndim(self.offset))

    @property
    def is_plain(self):
        return not self.by_channel and (self.scale, self.offset) == (1.0, 0.0)

    def scaled(self, layer, scale, offset):
        """The wire after a layer that scales and shifts."""
        return dataclasses.replace(
            self,
            scale=self.scale * scale,
            offset=self.offset * scale + offset,
            by=layer,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class LoweredNode:
    """A node whose output has the shape of its first input, unless a subclass differs.

    Args:
        layer: The Keras layer or operation, for names, errors, and what does not matter
            in inference; `None` for the input of the network.
        inputs: Tuple of `Wire`.
    """

    layer: Any
    inputs: tuple[Wire, ...]

    @property
    def name(self):
        return self.layer.name

    @property
    def before(self):
        return self.inputs[0].node

    @functools.cached_property
    def shape(self):
        return self.before.shape

    @property
    def image(self):
        """The shape before it was flattened; `None` if it was not."""
        return self.before.image


class AddNode(LoweredNode):
    """The sum of inputs of one shape."""


class TimeMeanNode(LoweredNode):
    """The mean over all time steps."""


class FlattenNode(LoweredNode):
    """All elements in one axis."""

    @functools.cached_property
    def shape(self):
        return (math.prod(self.before.shape),)

    @property
    def image(self):
        return self.before.shape


@dataclasses.dataclass(frozen=True, eq=False)
class InputNode(LoweredNode):
    """The input of the network."""

    shape: Sizes
    image = None


@dataclasses.dataclass(frozen=True, eq=False)
class _WindowedNode(LoweredNode):
    stride: Sizes
    dilation: Sizes
    padding: Pairs
    image = None

    @functools.cached_property
    def shape(self):
        # The window and the number of channels are those of the classes below.
        sizes = convolved(
            self.before.shape,
            self.window,  # type: ignore[attr-defined]
            self.stride,
            self.padding,
            self.dilation,
        )
        return (*sizes, self.channels)  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True, eq=False)
class AffineNode(_WindowedNode):
    """A dense layer, whose window has no axes, or a convolution.

    Args:
        stride: Tuple of integers, one for each axis of the window, as the following.
        dilation: Likewise.
        padding: Tuple of pairs: zeros before and after each axis, those of
            `ZeroPadding` layers among them.
        kernel: Array `(*window, inputs / groups, outputs)`; a depthwise convolution has
            as many groups as inputs.
        bias: Array `(outputs,)`, or `None`.
        groups: Integer. Defaults to `1`.
    """

    kernel: np.ndarray
    bias: np.ndarray | None
    groups: int = 1

    @property
    def window(self):
        return self.kernel.shape[:-2]

    @property
    def channels(self):
        return self.kernel.shape[-1]


@dataclasses.dataclass(frozen=True, eq=False)
class PoolNode(_WindowedNode):
    """The mean of each window without the padding, or the largest element. For the
    first arguments see `AffineNode`.

    Args:
        window: Tuple of integers.
        how: `"mean"` or `"max"`.
        whole: Boolean, whether the window is the whole image by definition. Defaults to
            `False`.
    """

    window: Sizes
    how: str
    whole: bool = False

    @property
    def channels(self):
        return self.before.shape[-1]


@dataclasses.dataclass(frozen=True, eq=False)
class ReadoutNode(LoweredNode):
    """A membrane that never spikes. Parameters are floats, or arrays of the shape of
    the node.

    Args:
        decay: λ; 1 without a leak.
        synaptic_decay: That of the current; `None` without one.
        decay_input: Boolean, whether inputs are scaled by 1 − λ.
    """

    decay: Any
    synaptic_decay: Any
    decay_input: bool


@dataclasses.dataclass(frozen=True, eq=False)
class NeuronNode(ReadoutNode):
    """Neurons. For the first arguments see `ReadoutNode`.

    Args:
        threshold: θ.
        v_reset: The membrane after a hard reset.
        initial_membrane: The membrane before the first step.
        reset: `"soft"` or `"hard"`.
        reset_delay: Boolean, whether a spike resets its neuron one step later.
        levels: Integer, the most spikes in a step; 0 for neurons that spike or not.
        spike_size: Float, the output for a spike.
        cell: The cell, for what does not matter in inference.
        feedback: The `AffineNode` by which spikes come back at the next step; it has no
            inputs. Defaults to `None`.
    """

    threshold: Any
    v_reset: Any
    initial_membrane: Any
    reset: str
    reset_delay: bool
    levels: int
    spike_size: float
    cell: Any
    feedback: AffineNode | None = None
