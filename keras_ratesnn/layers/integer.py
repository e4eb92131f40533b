"""Integer leaky integrate-and-fire neurons (I-LIF): a step emits up to D spikes at
once, as an integer."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_ratesnn._core import checks, registry
from keras_ratesnn._core.annotations import ParameterValue, Shape, Structure, Tensor
from keras_ratesnn._core.backend import engine
from keras_ratesnn.layers import dynamics, parameters
from keras_ratesnn.layers._arguments import arguments_of
from keras_ratesnn.layers._other_names import refuse_other_names
from keras_ratesnn.layers.neuron_cell import THRESHOLD_ADVICE, NeuronCell, Targets
from keras_ratesnn.layers.neurons import NeuronWithArguments
from keras_ratesnn.layers.parameters import LOGIT, Parameter

_AT_REST = "Above half its threshold a neuron would spike without input."


@registry.register
class ILIFCell(NeuronCell):
    """One time step of integer leaky integrate-and-fire neurons, whose equations are in
    `ILIF`.

    Example:

    >>> spikes, state = ILIFCell(levels=4)(np.array([[0.4, 1.7, 9.0]], "float32"))
    >>> print(ops.convert_to_numpy(spikes), ops.convert_to_numpy(state).round(2))
    [[0. 2. 4.]] [[ 0.4 -0.3  5. ]]

    Args: as in `ILIF`, but
        **kwargs: `name`, `dtype`, `trainable` of a Keras layer.

    Call arguments:
        inputs: Tensor of any shape `(batch, ...)`, the input current of this step.
        state: The state returned by the previous step; `None` for neurons before their
            first step.

    Returns:
        `(spikes, state)`: the spikes, exactly 0, 1, …, D (divided by D with
        `normalize=True`), and the membrane after the reset.
    """

    fixed_arguments = (
        "levels",
        "decay",
        "threshold",
        "axis",
        "normalize",
        "round_half_up",
        "detach_reset",
        "learn_decay",
        "initial_membrane",
    )
    decay = Parameter(
        LOGIT, at_least=0, at_most=1, advice="1 is a neuron without a leak."
    )
    threshold = Parameter(above=0, advice=THRESHOLD_ADVICE)
    initial_membrane = Parameter(advice=_AT_REST)
    decay_logit: keras.Variable | None = None
    derivative_weights = ("decay_logit",)
    levels = 1
    targets = Targets(integers=True)

    def __init__(
        self,
        levels: int = 4,
        decay: ParameterValue = 0.25,
        threshold: ParameterValue = 1.0,
        *,
        axis: int | None = -1,
        normalize: bool = False,
        round_half_up: bool = False,
        detach_reset: bool = True,
        learn_decay: bool = False,
        initial_membrane: ParameterValue = 0.0,
        **kwargs: Any,
    ) -> None:
        refuse_other_names(type(self).__name__, kwargs)
        super().__init__(threshold, **kwargs)
        # The clipping gives the derivative.
        del self.surrogate
        self.levels = checks.positive_integer(
            "levels", levels, advice="It is the most spikes in a step."
        )
        self.axis = parameters.checked_axis(axis)
        self.learn_decay = checks.boolean("learn_decay", learn_decay)
        self.decay = decay
        self.normalize = checks.boolean("normalize", normalize)
        self.round_half_up = checks.boolean("round_half_up", round_half_up)
        self.detach_reset = checks.boolean("detach_reset", detach_reset)
        self.initial_membrane = initial_membrane
        parameters.check_below(
            self, "initial_membrane", "threshold", _AT_REST, factor=0.5, least="at_most"
        )

    def build(self, input_shape: Shape) -> None:
        parameters.build(self, input_shape)

    @property
    def spike_size(self) -> float:
        return 1.0 / self.levels if self.normalize else 1.0

    def initial_state(self, inputs: Tensor) -> Tensor:
        return parameters.raised(
            super().initial_state(inputs), self.effective("initial_membrane")
        )

    def effective_decay(self) -> float | Tensor:
        """λ as the step uses it: a float, or a tensor if it is learned, or not the same
        for all neurons."""
        return self.effective("decay")

    def trace_decay(self) -> float | Tensor | None:
        # A subclass with another step may decay differently.
        return self.effective_decay() if type(self).step is ILIFCell.step else None

    def surrogate_derivative(self, membrane: Tensor) -> Tensor:
        """The derivative that replaces ∂s_t/∂v_t, of the spikes that `step` returns."""
        threshold = self.effective_threshold()
        slope = dynamics.fire_levels_derivative(membrane, threshold, self.levels)
        return slope * self.spike_size

    def fire(self, membrane: Tensor, threshold: float | Tensor | None = None) -> Tensor:
        """The integer s_t of spikes, before it is normalised, with the derivative of
        the clipping.

        Args:
            membrane: Tensor v_t.
            threshold: Must be `None`: it is the cell's.
        """
        if threshold is not None:
            raise ValueError(
                f"`threshold` must be None: the spikes of {type(self).__name__} have "
                f"the threshold of the cell. Received: threshold={threshold!r}."
            )
        threshold = self.effective_threshold()
        spikes = dynamics.fire_levels(
            membrane, threshold, self.levels, self.round_half_up
        )
        if not engine.grad_enabled():
            return spikes
        slope = dynamics.fire_levels_derivative(membrane, threshold, self.levels)
        return engine.graft(spikes, membrane, ops.stop_gradient(slope))

    def step(
        self, inputs: Tensor, state: Structure
    ) -> tuple[Tensor, Tensor, Structure]:
        current = ops.cast(inputs, state.dtype)
        membrane = dynamics.integrate(state, current, self.effective_decay())
        spikes = self.fire(membrane)
        resetting = ops.stop_gradient(spikes) if self.detach_reset else spikes
        after = dynamics.soft_reset(membrane, resetting, self.effective_threshold())
        if self.normalize:
            spikes = spikes / self.levels
        return membrane, spikes, after

    def step_derivative(
        self,
        state: Structure,
        membrane: Tensor,
        spikes: Tensor,
        surrogate_derivative: Tensor,
    ) -> Callable[..., tuple[Any, Any]]:
        decay, slope = self.effective_decay(), surrogate_derivative / self.spike_size
        through_reset = dynamics.soft_reset_derivative(
            slope, self.effective_threshold(), self.detach_reset
        )

        def along(input_tangent, state_tangent, weight):
            tangent = dynamics.integrate(state_tangent, input_tangent, decay)
            if weight is not None:
                # λ = σ(w), so dλ/dw = λ (1 − λ).
                tangent = tangent + decay * (1.0 - decay) * state
            if isinstance(through_reset, float):
                return tangent, tangent
            return tangent, through_reset * tangent

        return along


@registry.register
class ILIF(NeuronWithArguments):
    """Integer leaky integrate-and-fire neurons (I-LIF): up to `levels` = D spikes in a
    step, as an integer.

        v⁺_0 = initial_membrane
        v_t  = decay · v⁺_{t−1} + I_t
        s_t  = round(clip(v_t / threshold, 0, D))
                0, 1, …, D; halves are rounded to the even integer
        v⁺_t = v_t − threshold · s_t

    The membrane keeps what exceeds D spikes. With T = 1 these neurons round and clip
    their input: the network then is an ordinary one with quantised activations. Its
    inference is spiking if each integer is sent as that many spikes. With
    `normalize=True` the output is s_t / D (spike firing approximation, SFA), so that
    weights for other activations keep their scale.

    In the backward pass the derivative of s_t is that of the clipping, 1 / threshold
    where 0 <= v_t / threshold <= D, and 0 elsewhere: there is no surrogate to choose.
    Decay, threshold and membrane may be arrays or initializers, as in `LIF`.

    Example:

    >>> neurons = ILIF(levels=4)
    >>> print(ops.convert_to_numpy(neurons(np.array([[0.4, 1.7, 9.0]], "float32"))))
    [[0. 2. 4.]]

    Args:
        levels: Integer >= 1, D, the most spikes in a step. Defaults to `4`.
        decay: Float in [0, 1], the fraction of the membrane that remains after one
            step; with `1.0` there is no leak. Defaults to `0.25`.
        threshold: Float > 0, what a spike takes from the membrane. Defaults to `1.0`.
        axis: Integer or `None`, the channel axis of arrays and initializers, as in
            `LIF`. Defaults to `-1`.
        normalize: Boolean, whether spikes are divided by `levels`. Defaults to `False`.
        round_half_up: Boolean, whether halves, which sums of integer spikes often are,
            are rounded up instead of to the even integer. Defaults to `False`.
        detach_reset: Boolean, whether the backward pass ignores the dependence of the
            reset on the spikes. Defaults to `True`.
        learn_decay: Boolean, whether the layer learns its decay, as in `LIF`. Defaults
            to `False`.
        initial_membrane: Float <= `threshold / 2`, the membrane v⁺_0 before the first
            step. Defaults to `0.0`.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer` of a Keras layer.

    Input shape:
        Any, `(batch, ...)`: the input current.

    Output shape:
        Same as the input shape: spikes, exactly 0, 1, …, D, or these numbers divided by
        D with `normalize=True`.

    Raises:
        ValueError: If `levels` is below 1, `decay` outside [0, 1], `threshold` not > 0,
            or `initial_membrane` too large.
        TypeError: If an argument has the wrong type, or is one of other neurons.

    Source: Luo et al., "Integer-Valued Training and Spike-Driven Inference Spiking
    Neural Network for High-performance and Energy-efficient Object Detection"
    (SpikeYOLO), ECCV 2024; with `normalize=True` the spike firing approximation of Yao
    et al., "Scaling Spike-driven Transformer with Efficient Spike Firing Approximation
    Training", 2025.
    """

    @arguments_of(ILIFCell)
    def __init__(self, cell: ILIFCell, **kwargs: Any) -> None:
        super().__init__(cell, **kwargs)
