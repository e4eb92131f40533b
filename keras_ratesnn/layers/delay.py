"""Layers that delay spikes by learned numbers of steps."""

from typing import Any

import keras
from keras import ops

from keras_ratesnn._core import checks, registry, time_axis
from keras_ratesnn._core.annotations import Shape, Structure, Tensor
from keras_ratesnn._core.backend import engine
from keras_ratesnn._core.configs import ConfigOfAttributes
from keras_ratesnn.layers.time_mixing import TimeMixing

_WIDTH_OF_A_TAP = 0.27
_EPSILON = 1e-7


@registry.register
class Delay(ConfigOfAttributes, TimeMixing):
    """Delays each channel by a number of time steps that is learned.

    In training a channel with the position p is filtered by a kernel of L = `max_delay`
    taps, tap i of which is the delay L − 1 − i. It is a Gaussian, whose width σ
    `callbacks.LowerSigma` lowers while training goes on:

        K_i = N_i / Σ_j N_j         N_i = exp(−½ ((i − p − ⌊L/2⌋) / (σ + 0.27))²)
        y_t = Σ_i K_i x_{t−L+1+i}   x_t = 0 before the first step

    In inference p is rounded: the output is the input (L − 1)/2 − p steps before, so
    spikes stay spikes. Channels are the last axis. Positions stay in ±⌊L/2⌋. A sequence
    keeps its number of steps: what would arrive after its last step is lost.

    A `Delay` before a layer with weights gives axonal delays, one for each of its
    inputs; after it dendritic ones, one for each output. Delays of single synapses are
    not there: both together, or inputs that are repeated before the `Delay`, do
    instead.

    Train with `"bptt"`, or `"rate"` with several windows. A single window sees of a
    delay only what it pushes out at the end of the sequence, and `"sltt"` and `"ottt"`
    only what passes without delay: they are nearly blind to it.

    Positions are numbers of steps, and learn best at a rate about 100 times that of
    weights (in the source), without weight decay.

    Example, in inference:

    >>> delay = Delay(max_delay=5)
    >>> inputs = keras.Input((1,))
    >>> model = keras_ratesnn.SpikingModel(
    ...     keras.Model(inputs, keras_ratesnn.layers.IF()(delay(inputs))), timesteps=4
    ... )
    >>> # (5 − 1)/2 − 0.2, about 2 steps.
    >>> delay.set_weights([np.array([0.2]), np.array(2.0)])
    >>> model.return_sequences = True
    >>> print(
    ...     ops.convert_to_numpy(
    ...         model(np.array([[[1.0], [0.0], [0.0], [0.0]]], "float32"))
    ...     )[0, :, 0]
    ... )
    [0. 0. 1. 0.]

    Args:
        max_delay: Odd integer L >= 3, the number of taps: delays are 0 to L − 1 steps.
            Defaults to `25`.
        sigma: Float >= 0, σ at the start. It is also an attribute that can be set.
            Defaults to `None`, ⌊L/2⌋.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer` of a Keras layer.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If an argument has the wrong type.

    Source: Hammouamri, Khalfaoui-Hassani and Masquelier, "Learning Delays in Spiking
    Neural Networks using Dilated Convolutions with Learnable Spacings", ICLR 2024.
    There a delay also has a weight, here 1, and the sequence grows with each layer.
    """

    in_config = "max_delay", "sigma"

    def __init__(
        self, max_delay: int = 25, sigma: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.max_delay = checks.positive_integer(
            "max_delay", max_delay, advice="It is the number of taps."
        )
        if self.max_delay < 3 or self.max_delay % 2 == 0:
            raise ValueError(
                "`max_delay` must be an odd number of 3 or more, so that positions "
                f"are symmetric about the middle. Received: max_delay={max_delay}."
            )
        if sigma is None:
            self._start = float(self.max_delay // 2)
        else:
            self._start = checks.real("sigma", sigma, at_least=0)
        self._sigma = None

    def build(self, input_shape: Shape) -> None:
        if input_shape[-1] is None:
            raise ValueError(
                f"Delay {self.name!r} has a position for each channel, the last axis "
                f"of its input. Received: inputs of shape {tuple(input_shape)}, whose "
                "number of channels is unknown. Give keras.Input a shape without None "
                "there."
            )
        limit = self.max_delay // 2
        self.position = self.add_weight(
            shape=(input_shape[-1],),
            initializer=keras.initializers.RandomUniform(-limit, limit),
            constraint=_Within(limit),
            name="position",
        )
        self._sigma = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(self._start),
            trainable=False,
            name="sigma",
        )

    @property
    def sigma(self) -> float:
        """σ, the width of the kernels in training. It can be set."""
        if self._sigma is None:
            return self._start
        return float(ops.convert_to_numpy(self._sigma))

    @sigma.setter
    def sigma(self, value: float) -> None:
        value = checks.real("sigma", value, at_least=0)
        if self._sigma is None:
            self._start = value
        else:
            self._sigma.assign(value)

    def in_time(self, training: bool) -> Any:
        return self if training else _WholeSteps(self)

    def kernel(self) -> Tensor:
        """The kernels, `(max_delay, channels)`, with which the layer is trained."""
        position = ops.convert_to_tensor(self.position)
        width = ops.abs(self._sigma) + _WIDTH_OF_A_TAP
        distance = (self._taps(position.dtype) - position) / width
        taps = ops.exp(-0.5 * ops.square(distance))
        return taps / (ops.sum(taps, axis=0) + _EPSILON)

    def kernel_of_whole_steps(self) -> Tensor:
        """The kernels of rounded positions: one tap of 1 each."""
        position = ops.convert_to_tensor(self.position)
        is_tap = self._taps(position.dtype) == ops.round(position)
        return ops.cast(is_tap, position.dtype)

    def _taps(self, dtype):
        """The positions of the taps, `(max_delay, 1)`."""
        taps = ops.arange(self.max_delay) - self.max_delay // 2
        return ops.cast(taps[:, None], dtype)

    def initial_state(self, inputs: Tensor) -> Structure:
        """The last inputs, the earliest first: zeros `(batch, max_delay - 1, ...)`."""
        zeros = ops.zeros_like(inputs)[:, None]
        return {"inputs": ops.repeat(zeros, self.max_delay - 1, axis=1)}

    def step(
        self, inputs: Tensor, state: Structure, kernel: Tensor = None
    ) -> tuple[Tensor, Structure]:
        kernel = self._like(inputs, kernel)
        queue = ops.concatenate([state["inputs"], inputs[:, None]], axis=1)
        inner = [1 for _ in inputs.shape[2:]]
        shape = (1, self.max_delay, *inner, inputs.shape[-1])
        weights = ops.reshape(kernel, shape)
        return ops.sum(queue * weights, axis=1), {"inputs": queue[:, 1:]}

    def over_time(self, inputs: Tensor, kernel: Tensor = None) -> Tensor:
        _, timesteps, *shape = inputs.shape
        order = [0, *range(2, len(shape) + 1), 1, len(shape) + 1]
        rows = ops.reshape(ops.transpose(inputs, order), (-1, timesteps, shape[-1]))
        delayed = engine.filter_in_time(rows, self._like(inputs, kernel))
        delayed = ops.reshape(delayed, (-1, *shape[:-1], timesteps, shape[-1]))
        back = [0, len(shape), *range(1, len(shape)), len(shape) + 1]
        return ops.transpose(delayed, back)

    def _like(self, inputs, kernel):
        return time_axis.cast(self.kernel() if kernel is None else kernel, inputs.dtype)


class _WholeSteps:
    """A `Delay` in inference."""

    def __init__(self, layer):
        self._layer = layer
        self.variables = layer.variables
        self.initial_state = layer.initial_state

    def step(self, inputs, state):
        return self._layer.step(inputs, state, self._layer.kernel_of_whole_steps())

    def over_time(self, inputs):
        return self._layer.over_time(inputs, self._layer.kernel_of_whole_steps())


class _Within(keras.constraints.Constraint):
    """Clips to ±`limit` after each update."""

    def __init__(self, limit):
        self.limit = limit

    def __call__(self, value):
        return ops.clip(value, -self.limit, self.limit)
