"""Integrate-and-fire cells: the parameters of a neuron and one step of its membrane,
without time loop or training method."""

from collections.abc import Callable
from typing import Any, Self

import keras
from keras import ops

from keras_ratesnn._core import checks, registry
from keras_ratesnn._core.annotations import (
    Config,
    ParameterValue,
    Reset,
    Shape,
    Structure,
    Tensor,
)
from keras_ratesnn._core.backend import engine
from keras_ratesnn.layers import dynamics, parameters
from keras_ratesnn.layers._arguments import passed_on
from keras_ratesnn.layers._other_names import advice_on_reset, refuse_other_names
from keras_ratesnn.layers.neuron_cell import THRESHOLD_ADVICE, NeuronCell, Targets
from keras_ratesnn.layers.parameters import LOG, LOGIT, Parameter
from keras_ratesnn.surrogates import Surrogate

RESETS: tuple[Reset, ...] = ("soft", "hard")
_NO_V_RESET = (
    "SpikingJelly's v_reset=None, a reset that subtracts the threshold, is "
    'reset="soft", without `v_reset`.'
)
_AT_REST = "At its threshold a neuron would spike without input."
DECAY_ADVICE = "A time constant of τ steps is decay = 1 − 1/τ."


class IntegrateAndFireCell(NeuronCell):
    """Base class of integrate-and-fire cells: one membrane equation, with a decay
    defined by subclasses.

        v⁺_0 = initial_membrane
        v_t  = decay · v⁺_{t−1} + I_t
        s_t  = 1 where v_t >= threshold, else 0
        v⁺_t = v_t − threshold · s_t                  reset="soft"
        v⁺_t = v_t · (1 − s_t) + v_reset · s_t        reset="hard"

    With `reset_delay` the reset acts in the next step, after integration: v_t is what
    the reset by s_{t−1} makes of decay · v_{t−1} + I_t, and the state is v_t and s_t.

    Args: as in `IF`, but
        **kwargs: `name`, `dtype`, `trainable` of a Keras layer.
    """

    levels = 1
    fixed_arguments: tuple[str, ...] = (
        "threshold",
        "axis",
        "reset",
        "v_reset",
        "detach_reset",
        "reset_delay",
        "surrogate",
        "learn_threshold",
        "initial_membrane",
    )
    threshold = Parameter(LOG, above=0, advice=THRESHOLD_ADVICE)
    v_reset: Any = Parameter(advice="A reset lowers the membrane.")
    initial_membrane: Any = Parameter(advice=_AT_REST)
    decay: Any
    decay_input = False
    learn_threshold = False
    log_threshold: keras.Variable | None = None
    decay_logit: keras.Variable | None = None
    decay_bits: int | None = None
    derivative_weights = ("decay_logit", "log_threshold")

    def __init__(
        self,
        threshold: ParameterValue = 1.0,
        *,
        axis: int | None = -1,
        reset: Reset = "soft",
        v_reset: ParameterValue = 0.0,
        detach_reset: bool = True,
        reset_delay: bool = False,
        surrogate: str | Surrogate | Config = "sigmoid",
        learn_threshold: bool = False,
        initial_membrane: ParameterValue = 0.0,
        **kwargs: Any,
    ) -> None:
        refuse_other_names(type(self).__name__, kwargs)
        super().__init__(threshold, surrogate=surrogate, **kwargs)
        self.axis = parameters.checked_axis(axis)
        self.reset = checks.one_of(
            "reset", reset, RESETS, advice=advice_on_reset(reset)
        )
        if v_reset is None:
            raise checks.wrong_type("v_reset", "a real number", v_reset, _NO_V_RESET)
        self.v_reset = v_reset
        is_zero = isinstance(self.v_reset, float) and self.v_reset == 0.0
        if self.reset == "soft" and not is_zero:
            raise ValueError(
                '`v_reset` must be 0.0 with reset="soft", which subtracts the '
                f"threshold from the membrane. Received: v_reset={v_reset} with "
                'reset="soft". To set the membrane to v_reset use reset="hard".'
            )
        self.detach_reset = checks.boolean("detach_reset", detach_reset)
        self.learn_threshold = checks.boolean("learn_threshold", learn_threshold)
        self.initial_membrane = initial_membrane
        self.reset_delay = checks.boolean("reset_delay", reset_delay)
        if self.reset == "hard":
            parameters.check_below(
                self, "v_reset", "threshold", "A reset lowers the membrane."
            )
        parameters.check_below(self, "initial_membrane", "threshold", _AT_REST)

    def build(self, input_shape: Shape) -> None:
        parameters.build(self, input_shape)

    def initial_state(self, inputs: Tensor) -> Structure:
        at_rest = super().initial_state(inputs)
        membrane = parameters.raised(at_rest, self.effective("initial_membrane"))
        if self.reset_delay:
            return {"membrane": membrane, "spikes": at_rest}
        return membrane

    def effective_decay(self) -> float | Tensor:
        """λ as the step uses it: a float, or a tensor if it is learned, or not the same
        for all neurons."""
        decay = self.effective("decay")
        if self.decay_bits is None:
            return decay
        # Neither 0 nor 1, where the derivative of the sigmoid is 0: the decay could
        # not leave them.
        steps = 2.0**self.decay_bits
        decay = ops.clip(ops.round(decay * steps), 1.0, steps - 1.0) / steps
        decay = ops.stop_gradient(decay)
        logit = ops.convert_to_tensor(self.decay_logit)
        return engine.graft(decay, logit, decay * (1.0 - decay))

    def trace_decay(self) -> float | Tensor | None:
        # A subclass with another step may decay differently.
        if type(self).step is not IntegrateAndFireCell.step:
            return None
        return self.effective_decay()

    def step(
        self, inputs: Tensor, state: Structure, threshold: float | Tensor | None = None
    ) -> tuple[Tensor, Tensor, Structure]:
        """As in `NeuronCell`; `threshold` is θ_t, if a layer sets a new threshold at
        each step."""
        threshold = self.effective_threshold() if threshold is None else threshold
        before = state["membrane"] if self.reset_delay else state
        current = ops.cast(inputs, before.dtype)
        membrane = dynamics.integrate(
            before, current, self.effective_decay(), self.decay_input
        )
        if self.reset_delay:
            membrane = self.after_reset(membrane, state["spikes"], threshold)
            spikes = self.fire(membrane, threshold)
            return membrane, spikes, {"membrane": membrane, "spikes": spikes}
        spikes = self.fire(membrane, threshold)
        return membrane, spikes, self.after_reset(membrane, spikes, threshold)

    def after_reset(
        self, membrane: Tensor, spikes: Tensor, threshold: float | Tensor
    ) -> Tensor:
        """v⁺_t: the membrane after it was reset by spikes for this `threshold`."""
        resetting = ops.stop_gradient(spikes) if self.detach_reset else spikes
        if self.reset == "soft":
            return dynamics.soft_reset(membrane, resetting, threshold)
        return dynamics.hard_reset(membrane, resetting, self.effective("v_reset"))

    @property
    def has_step_derivative(self) -> bool:
        # The derivative of an attached, delayed hard reset would need the membrane that
        # the reset has replaced.
        return self.detach_reset or not self.reset_delay

    def step_derivative(
        self,
        state: Structure,
        membrane: Tensor,
        spikes: Tensor,
        surrogate_derivative: Tensor,
    ) -> Callable[..., tuple[Any, Any]]:
        decay, threshold = self.effective_decay(), self.effective_threshold()
        resetting = state["spikes"] if self.reset_delay else spikes
        if self.reset == "soft":
            through_reset = dynamics.soft_reset_derivative(
                surrogate_derivative, threshold, self.detach_reset
            )
        else:
            through_reset = dynamics.hard_reset_derivative(
                membrane,
                resetting,
                surrogate_derivative,
                self.effective("v_reset"),
                self.detach_reset,
            )

        def tangent_after_reset(tangent, learns_threshold):
            if not isinstance(through_reset, float):
                tangent = through_reset * tangent
            if learns_threshold and (self.reset == "soft" or not self.detach_reset):
                # Of the reset alone, see `dynamics`; rounded like spikes, of size 1.
                change = (1.0 - through_reset) - resetting
                tangent = tangent + change * threshold
            return tangent

        def along(input_tangent, state_tangent, weight):
            before = state_tangent["membrane"] if self.reset_delay else state_tangent
            tangent = dynamics.integrate(before, input_tangent, decay, self.decay_input)
            if weight is not None and weight is self.decay_logit:
                # λ = σ(w), so dλ/dw = λ (1 − λ).
                change = self._change_by_decay(state, membrane, decay)
                tangent = tangent + decay * change
            # θ = exp(w), so dθ/dw = θ.
            learns_threshold = weight is not None and weight is self.log_threshold
            after = tangent_after_reset(tangent, learns_threshold)
            if self.reset_delay:
                tangent = after
                after = {"membrane": after, "spikes": state_tangent["spikes"]}
            return tangent - threshold if learns_threshold else tangent, after

        return along

    def _change_by_decay(
        self, state: Structure, membrane: Tensor, decay: Tensor
    ) -> Tensor:
        """(1 − λ) ∂v/∂λ of the membrane v after integration."""
        before = state["membrane"] if self.reset_delay else state
        if not self.decay_input:
            return (1.0 - decay) * before
        if self.reset_delay:
            # Before the reset. Where a hard reset differs from a soft one, it has no
            # derivative.
            membrane = membrane + self.effective_threshold() * state["spikes"]
        # v = λ v⁺ + (1 − λ) I, so (1 − λ) (v⁺ − I) = v⁺ − v.
        return before - membrane

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return super().from_config(without_ignored_reset(config))


def without_ignored_reset(config: Config) -> Config:
    """Corrects configs from versions in which a soft reset accepted and ignored any
    `v_reset`."""
    if config.get("reset") == "soft" and "v_reset" in config:
        return {**config, "v_reset": 0.0}
    return config


@registry.register
class LIFCell(IntegrateAndFireCell):
    """One time step of leaky integrate-and-fire neurons, whose equations are in `LIF`.

    Example:

    >>> cell = LIFCell(decay=0.5)
    >>> spikes, state = cell(np.array([[0.8, 1.5]], "float32"))
    >>> spikes, state = cell(np.array([[0.8, 0.0]], "float32"), state)
    >>> print(ops.convert_to_numpy(spikes), ops.convert_to_numpy(state).round(2))
    [[1. 0.]] [[0.2  0.25]]

    Args: as in `LIF`, but
        **kwargs: `name`, `dtype`, `trainable` of a Keras layer.

    Call arguments:
        inputs: Tensor of any shape `(batch, ...)`, the input current of this step.
        state: The state returned by the previous step; `None` for neurons before their
            first step.

    Returns:
        `(spikes, state)`: spikes of the shape of `inputs`, exactly 0 or 1; the membrane
        after the reset, or with a delayed reset a dict of `"membrane"` v_t and
        `"spikes"` s_t.
    """

    fixed_arguments = (
        "decay",
        "decay_input",
        "learn_decay",
        *IntegrateAndFireCell.fixed_arguments,
    )
    decay = Parameter(LOGIT, at_least=0, below=1, advice=DECAY_ADVICE)
    learn_decay = False
    targets = Targets(nir="LIF", integers=True)

    def __init__(
        self,
        decay: ParameterValue = 0.2,
        threshold: ParameterValue = 1.0,
        *,
        decay_input: bool = False,
        axis: int | None = -1,
        reset: Reset = "soft",
        v_reset: ParameterValue = 0.0,
        detach_reset: bool = True,
        reset_delay: bool = False,
        surrogate: str | Surrogate | Config = "sigmoid",
        learn_decay: bool = False,
        learn_threshold: bool = False,
        initial_membrane: ParameterValue = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**passed_on(locals(), "decay", "decay_input", "learn_decay"))
        self.learn_decay = checks.boolean("learn_decay", learn_decay)
        self.decay = decay
        self.decay_input = checks.boolean("decay_input", decay_input)


@registry.register
class IFCell(IntegrateAndFireCell):
    """One time step of integrate-and-fire neurons: like `LIFCell` without a leak,
    `decay = 1`.

    Args: as in `IF`, but
        **kwargs: `name`, `dtype`, `trainable` of a Keras layer.

    Example:

    >>> spikes, state = IFCell()(np.array([[0.25, 1.5]], "float32"))
    >>> print(ops.convert_to_numpy(spikes), ops.convert_to_numpy(state))
    [[0. 1.]] [[0.25 0.5 ]]
    """

    decay = 1.0
    targets = Targets(nir="IF", integers=True)


@registry.register
class ParametricLIFCell(LIFCell):
    """One time step of leaky integrate-and-fire neurons that learn their decay, which
    is the sigmoid of a weight.

    Example:

    >>> cell = ParametricLIFCell(decay=0.5)
    >>> spikes, state = cell(np.array([[0.8]], "float32"))
    >>> print([weight.name for weight in cell.trainable_weights])
    ['decay_logit']

    Args: as in `ParametricLIF`, but
        **kwargs: `name`, `dtype`, `trainable` of a Keras layer.
    """

    fixed_arguments = (
        *(name for name in LIFCell.fixed_arguments if name != "learn_decay"),
        "per_channel",
        "decay_bits",
    )
    decay = Parameter(LOGIT, per_channel_if="per_channel", advice=DECAY_ADVICE)
    targets = Targets(nir="LIF", integers=True)

    def __init__(
        self,
        decay: ParameterValue = 0.5,
        threshold: ParameterValue = 1.0,
        *,
        decay_input: bool = False,
        per_channel: bool = False,
        axis: int | None = -1,
        decay_bits: int | None = None,
        reset: Reset = "soft",
        v_reset: ParameterValue = 0.0,
        detach_reset: bool = True,
        reset_delay: bool = False,
        surrogate: str | Surrogate | Config = "sigmoid",
        learn_threshold: bool = False,
        initial_membrane: ParameterValue = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            **passed_on(locals(), "per_channel", "decay_bits"), learn_decay=True
        )
        self.per_channel = checks.boolean("per_channel", per_channel)
        if decay_bits is not None:
            decay_bits = checks.positive_integer("decay_bits", decay_bits)
        self.decay_bits = decay_bits
