"""One weight for each channel, or for all: connections from one to one."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_ratesnn._core import checks, registry
from keras_ratesnn._core.annotations import Shape, Sizes, Tensor
from keras_ratesnn._core.configs import ConfigOfAttributes
from keras_ratesnn.layer_kinds import LayerKind


def _elements(layer: Any, input_shape: Sizes, output_shape: Sizes) -> int:
    return math.prod(output_shape[1:])


def _one_each(layer: Any, input_shape: Sizes, output_shape: Sizes) -> np.ndarray:
    return np.ones(())


@registry.register
class Scale(ConfigOfAttributes, keras.layers.Layer):
    """Multiplies its input by a weight that it learns, shared by all elements or one
    for each channel.

    As the synapse of `Recurrent` it gives each neuron its own spikes back, and those of
    no other.

    Example:

    >>> neurons = keras_ratesnn.layers.Recurrent(
    ...     keras_ratesnn.layers.LIF(), Scale(-0.5)
    ... )
    >>> print(
    ...     ops.convert_to_numpy(
    ...         Scale(-0.5, per_channel=True)(np.array([[1.0, 2.0]], "float32"))
    ...     )
    ... )
    [[-0.5 -1. ]]

    Args:
        initial: Float, the weight before training. Defaults to `1.0`.
        per_channel: Boolean, whether each channel has its own weight; otherwise all
            elements share one. Defaults to `False`.
        axis: Integer, the channel axis: 1 for `channels_first` data. Defaults to `-1`.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer` of a Keras layer;
            with `trainable=False` the weight is fixed.

    Input shape: `(batch, ...)`. Output shape: the same.
    """

    layer_kind = LayerKind(
        affine=True,
        function_of_tensors=True,
        multiply_adds=_elements,
        fan_out=_one_each,
    )
    in_config = "initial", "per_channel", "axis"

    def __init__(
        self,
        initial: float = 1.0,
        *,
        per_channel: bool = False,
        axis: int = -1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.initial = checks.real("initial", initial)
        self.per_channel = checks.boolean("per_channel", per_channel)
        self.axis = checks.integer("axis", axis)
        self.supports_masking = True

    def build(self, input_shape: Shape) -> None:
        shape: list[int] = [1] * len(input_shape)
        if self.per_channel:
            rank = len(input_shape)
            is_axis = self.axis != 0 and -rank < self.axis < rank
            channels = input_shape[self.axis] if is_axis else None
            if channels is None:
                raise ValueError(
                    "`axis` must be an axis of known size, of the channels. Received: "
                    f"axis={self.axis} for an input of shape {tuple(input_shape)}."
                )
            shape[self.axis] = channels
        # Its first axis is that of the batch.
        initializer = keras.initializers.Constant(self.initial)
        self.scale = self.add_weight(
            shape=tuple(shape), initializer=initializer, name="scale"
        )

    def call(self, inputs: Tensor) -> Tensor:
        return inputs * ops.cast(self.scale, inputs.dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape
