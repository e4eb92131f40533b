"""Encoders: layers that turn an input without time into a sequence of spikes. They mark where time begins.

Without one, an input without time is presented as it is at every step (direct encoding), which is what the paper does and
what trains best in few steps.
"""

from typing import Any

import keras
from keras import ops

from keras_ratesnn._core import backend, registry
from keras_ratesnn._core.annotations import Config, Shape, Structure, Tensor
from keras_ratesnn.layer_kinds import ENCODER, LayerKind


class Encoder(keras.layers.Layer):
    """Base class of encoders: in a `SpikingModel`, one input in, a sequence of spikes out.

    A subclass implements `encode`. Called outside a `SpikingModel`, an encoder gives the first step of a sequence of one.

    Args:
        **kwargs: `name`, `dtype` of a Keras layer.
    """

    layer_kind = LayerKind(role=ENCODER)

    rate_derivative = 1.0
    """What the derivative of the firing rate by the input is taken to be."""

    def encode(self, inputs: Tensor, t: Any, timesteps: int) -> Tensor:
        """The spikes of one step.

        Args:
            inputs: Tensor `(batch, ...)`.
            t: Integer, or integer scalar tensor: the step, from 0 on.
            timesteps: Integer T.

        Returns:
            Tensor like `inputs`, 0 or 1.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `encode(inputs, t, timesteps)`.")

    def spikes(self, inputs: Tensor, t: Any, timesteps: int) -> Tensor:
        """`encode`, with the derivative that the encoder declares."""
        encoded = ops.cast(self.encode(inputs, t, timesteps), inputs.dtype)
        return backend.graft(ops.stop_gradient(encoded), inputs, self.rate_derivative)

    def call(self, inputs: Tensor) -> Structure:
        return self.spikes(inputs, 0, 1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


@registry.register
class BernoulliEncoder(Encoder):
    """Rate coding: at every step a spike with the probability that the input gives, drawn anew for every batch and step.

    The number of spikes approaches a Poisson process where probabilities are small. The derivative of the firing rate by
    the input is that of its expectation, 1.

    Example:

    >>> encoder = BernoulliEncoder(seed=0)
    >>> print(ops.convert_to_numpy(encoder(np.array([[0.0, 1.0]], "float32"))))
    [[0. 1.]]

    Args:
        seed: Integer or `None`, the seed of the random numbers. Defaults to `None`, a random one.
        **kwargs: `name`, `dtype` of a Keras layer.

    Input shape:
        Any, `(batch, ...)`: probabilities in [0, 1]. Values beyond never or always spike.
    """

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def encode(self, inputs: Tensor, t: Any, timesteps: int) -> Tensor:
        # Drawn in float32: in half precision a uniform number can round up to 1.
        return keras.random.uniform(ops.shape(inputs), dtype="float32", seed=self.seed_generator) < ops.cast(inputs, "float32")

    def get_config(self) -> Config:
        return {**super().get_config(), "seed": self.seed}


@registry.register
class LatencyEncoder(Encoder):
    """Latency coding: one spike for each input, the earlier the larger it is.

    An input x in (0, 1] spikes once, at step round((1 − x) (T − 1)); 0 never does. When a spike comes says nothing to a
    firing rate, so no gradient passes to the layers before.

    Example:

    >>> encoder = LatencyEncoder()
    >>> inputs = ops.convert_to_tensor(np.array([[1.0, 0.5, 0.0]], "float32"))
    >>> for t in range(3):
    ...     print(ops.convert_to_numpy(encoder.spikes(inputs, t, timesteps=3)))
    [[1. 0. 0.]]
    [[0. 1. 0.]]
    [[0. 0. 0.]]

    Args:
        **kwargs: `name`, `dtype` of a Keras layer.

    Input shape:
        Any, `(batch, ...)`: intensities in [0, 1]. Values above 1 spike at the first step, values below 0 never.
    """

    rate_derivative = 0.0

    def encode(self, inputs: Tensor, t: Any, timesteps: int) -> Tensor:
        inputs = ops.cast(inputs, "float32")
        step = ops.round((1.0 - ops.minimum(inputs, 1.0)) * (timesteps - 1))
        return ops.logical_and(step == ops.cast(t, "float32"), inputs > 0)
