"""Encoders: layers that turn an input without time into a sequence of spikes.

Without an encoder, the same input is presented at every step (direct encoding). The
paper of rate-based backpropagation uses direct encoding, which trains best with few
steps.
"""

from typing import Any

import keras
from keras import ops

from keras_ratesnn._core import checks, registry
from keras_ratesnn._core.annotations import Shape, Structure, Tensor
from keras_ratesnn._core.backend import engine
from keras_ratesnn._core.configs import ConfigOfAttributes
from keras_ratesnn.layer_kinds import ENCODER, LayerKind


class Encoder(keras.layers.Layer):
    """Base class of encoders, which turn one input into a sequence of spikes in a
    `SpikingModel`.

    A subclass implements `encode`. Outside a `SpikingModel`, an encoder returns the
    only step of a sequence with T = 1.

    Args:
        **kwargs: `name`, `dtype` of a Keras layer.
    """

    layer_kind = LayerKind(role=ENCODER)

    rate_derivative = 1.0
    """The derivative of the firing rate with respect to the input."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def encode(self, inputs: Tensor, t: Any, timesteps: int) -> Tensor:
        """The spikes of one step.

        Args:
            inputs: Tensor `(batch, ...)`.
            t: Integer, or integer scalar tensor: the step, from 0 on.
            timesteps: Integer T.

        Returns:
            Tensor like `inputs`, 0 or 1.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement `encode(inputs, t, timesteps)`."
        )

    def spikes(self, inputs: Tensor, t: Any, timesteps: int) -> Tensor:
        """The spikes of `encode`, with the derivative that the encoder declares."""
        encoded = ops.cast(self.encode(inputs, t, timesteps), inputs.dtype)
        return engine.graft(ops.stop_gradient(encoded), inputs, self.rate_derivative)

    def call(self, inputs: Tensor) -> Structure:
        return self.spikes(inputs, 0, 1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


@registry.register
class BernoulliEncoder(ConfigOfAttributes, Encoder):
    """Rate coding: at every step, the input is the probability of a spike. Spikes are
    drawn again for every batch and step.

    For small probabilities the spikes approximate a Poisson process. The derivative of
    the firing rate with respect to the input is that of its expectation, 1.

    Example:

    >>> encoder = BernoulliEncoder(seed=0)
    >>> print(ops.convert_to_numpy(encoder(np.array([[0.0, 1.0]], "float32"))))
    [[0. 1.]]

    Args:
        seed: Integer or `None`, the random seed. Defaults to `None`, a random seed.
        **kwargs: `name`, `dtype` of a Keras layer.

    Input shape:
        Any, `(batch, ...)`: probabilities in [0, 1]. Smaller values never spike, larger
        ones always.
    """

    in_config = ("seed",)

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = None if seed is None else checks.integer("seed", seed)
        self.seed_generator = keras.random.SeedGenerator(self.seed)

    def encode(self, inputs: Tensor, t: Any, timesteps: int) -> Tensor:
        # Drawn in float32: in half precision a uniform number can round up to 1.
        uniform = keras.random.uniform(
            ops.shape(inputs), dtype="float32", seed=self.seed_generator
        )
        return uniform < ops.cast(inputs, "float32")


@registry.register
class LatencyEncoder(Encoder):
    """Latency coding: one spike for each input, earlier for larger inputs.

    An input x in (0, 1] spikes once, at step round((1 − x) (T − 1)); 0 never spikes.
    The firing rate does not depend on the time of the spike, so no gradient passes to
    earlier layers.

    Example:

    >>> encoder = LatencyEncoder()
    >>> inputs = ops.convert_to_tensor(np.array([[1.0, 0.5, 0.0]], "float32"))
    >>> for t in range(3):
    ...     print(ops.convert_to_numpy(encoder.spikes(inputs, t, timesteps=3)))
    [[1. 0. 0.]]
    [[0. 1. 0.]]
    [[0. 0. 0.]]

    Args: as in `Encoder`.

    Input shape:
        Any, `(batch, ...)`: intensities in [0, 1]. Values above 1 spike at the first
        step, values below 0 never.
    """

    rate_derivative = 0.0

    def encode(self, inputs: Tensor, t: Any, timesteps: int) -> Tensor:
        inputs = ops.cast(inputs, "float32")
        step = ops.round((1.0 - ops.minimum(inputs, 1.0)) * (timesteps - 1))
        return ops.logical_and(step == ops.cast(t, "float32"), inputs > 0)
