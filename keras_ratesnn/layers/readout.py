"""A leaky membrane that never spikes, at the end of a network."""

from typing import Any, Literal

from keras import ops

from keras_ratesnn._core import checks, registry, time_axis
from keras_ratesnn._core.annotations import (
    Config,
    ParameterValue,
    Shape,
    Structure,
    Tensor,
)
from keras_ratesnn._core.other_names import RefusesOtherNames
from keras_ratesnn.layer_kinds import READOUT, LayerKind
from keras_ratesnn.layers import dynamics, parameters
from keras_ratesnn.layers._other_names import OTHER_NAMES, refuse_other_names
from keras_ratesnn.layers.cells import DECAY_ADVICE
from keras_ratesnn.layers.parameters import LOGIT, Parameter, WeightsInFloat32

ReadoutValue = Literal["mean", "last", "max"]
VALUES: tuple[ReadoutValue, ...] = ("mean", "last", "max")


@registry.register
class LeakyReadout(RefusesOtherNames, WeightsInFloat32):
    """A leaky membrane that never spikes, for the end of a network: its mean, last or
    largest value over time is the output.

        v_0 = 0
        v_t = decay · v_{t−1} + I_t

    With `decay_input=True` the input is (1 − decay) · I_t; with `synaptic_decay` a
    current takes its place, as in `CuBaLIF`.

    What follows the layer runs once, on this value, as after a `TimeMean`, and must
    have no neurons. With `return_sequences=True` of the `SpikingModel`, and in a
    stream, the output is the membrane of each step, and what follows runs at each step.
    Padding and masked steps leave the membrane as it is.

    The membrane is linear in its inputs, and differentiated exactly with every training
    method: rate training, whose inputs are their rates, has the exact derivative by
    these, and online methods, which separate the steps of the neurons, go through all
    steps of this layer. Its input is kept at all steps.

    The readouts of other libraries:

        snnTorch's Leaky(beta=β, reset_mechanism="none"), its membrane   LeakyReadout(β)
        SpikingJelly's NonSpikingLIFNode(tau=τ, decode="max-mem")
                LeakyReadout(1 − 1/τ, decay_input=True, value="max")
        SpikingJelly's NonSpikingIFNode(decode="mean-mem")   LeakyReadout(1.0)
        Norse's LI, by default   LeakyReadout(0.9, decay_input=True, synaptic_decay=0.8)

    Example:

    >>> inputs = keras.Input((4,))
    >>> spikes = keras_ratesnn.layers.LIF()(keras.layers.Dense(16)(inputs))
    >>> outputs = LeakyReadout(decay=0.9, value="max")(keras.layers.Dense(3)(spikes))
    >>> model = keras_ratesnn.SpikingModel(keras.Model(inputs, outputs), timesteps=8)
    >>> largest = model.predict(np.ones((2, 8, 4)), verbose=0)
    >>> model.return_sequences = True
    >>> membranes = model.predict(np.ones((2, 8, 4)), verbose=0)
    >>> membranes.shape, np.array_equal(membranes.max(axis=1), largest)
    ((2, 8, 3), True)

    Args:
        decay: Float in [0, 1], the fraction of the membrane that remains after one
            step; 1 adds up the inputs. As in `LIF` an array or a Keras initializer, and
            with `learn_decay=True` learned. Defaults to `0.9`.
        threshold: Must be `None`, since a readout never spikes. Defaults to `None`.
        decay_input: Boolean, whether the input, or the current, is scaled by 1 −
            `decay`. Defaults to `False`.
        synaptic_decay: Float in [0, 1), the fraction of the synaptic current that
            remains after one step; with 0 the input is the current. It is given as
            `decay` is. Defaults to `0.0`.
        axis: Integer or `None`, the axis of the channels, as in `LIF`. Defaults to
            `-1`.
        learn_decay: Boolean, whether the decay is learned. Defaults to `False`.
        learn_synaptic_decay: Boolean, whether the decay of the current is learned.
            Defaults to `False`.
        value: `"mean"`, `"last"` or `"max"`, which value over time is the output.
            Defaults to `"mean"`.
        **kwargs: `name`, `dtype`, `activity_regularizer` of a Keras layer; the
            regularizer sees the membranes of all steps.

    Input shape:
        Any, `(batch, ...)`: the input current.

    Output shape:
        Same as the input shape.

    Raises:
        ValueError: If a decay is out of its range, `decay=1` is combined with
            `decay_input=True`, or `value` is unknown.
        TypeError: If an argument has the wrong type, or a name from neurons or another
            library.
    """

    layer_kind = LayerKind(role=READOUT)
    other_names = OTHER_NAMES
    decay = Parameter(LOGIT, at_least=0, at_most=1, advice=DECAY_ADVICE)
    synaptic_decay = Parameter(LOGIT, at_least=0, below=1, advice=DECAY_ADVICE)

    def __init__(
        self,
        decay: ParameterValue = 0.9,
        threshold: None = None,
        *,
        decay_input: bool = False,
        synaptic_decay: ParameterValue = 0.0,
        axis: int | None = -1,
        learn_decay: bool = False,
        learn_synaptic_decay: bool = False,
        value: ReadoutValue = "mean",
        **kwargs: Any,
    ) -> None:
        kind = type(self).__name__
        given = kwargs if threshold is None else {"threshold": threshold, **kwargs}
        for name in _SPIKE_ARGUMENTS & given.keys():
            raise TypeError(
                f"{kind} has no argument `{name}`: its membranes never spike. "
                f"Received: {name}={given[name]!r}. Leave it out, or use neurons, such "
                "as keras_ratesnn.layers.LIF."
            )
        refuse_other_names(kind, kwargs)
        super().__init__(**kwargs)
        self.axis = parameters.checked_axis(axis)
        self.learn_decay = checks.boolean("learn_decay", learn_decay)
        self.learn_synaptic_decay = checks.boolean(
            "learn_synaptic_decay", learn_synaptic_decay
        )
        self.decay = decay
        self.decay_input = checks.boolean("decay_input", decay_input)
        if self.decay_input and isinstance(self.decay, float) and self.decay == 1.0:
            raise ValueError(
                "`decay_input=True` scales the input by 1 − decay. Received: "
                "decay=1.0, which leaves nothing of it. Leave one of the two out."
            )
        self.synaptic_decay = synaptic_decay
        self.has_current = not (
            isinstance(self.synaptic_decay, float) and self.synaptic_decay == 0.0
        )
        self.value = checks.one_of("value", value, VALUES)
        self.supports_masking = True

    def build(self, input_shape: Shape) -> None:
        parameters.build(self, input_shape)

    def effective(self, name: str) -> float | Tensor:
        """A decay as the step uses it: a float, or a tensor if it is learned, or not
        the same for all membranes."""
        return getattr(type(self), name).tensor(self)

    def initial_state(self, inputs: Tensor) -> Structure:
        """The state before the first step, given its inputs: a dict of the membrane,
        and of the current if it decays."""
        start = ops.zeros_like(inputs, dtype=time_axis.accumulation_dtype(inputs.dtype))
        if self.has_current:
            return {"current": start, "membrane": start}
        return {"membrane": start}

    def step(self, inputs: Tensor, state: Structure) -> tuple[Tensor, Structure]:
        """One time step: the membrane v_t, and the state after it."""
        before, after = state["membrane"], {}
        current = time_axis.cast(inputs, before.dtype)
        if self.has_current:
            decay = self.effective("synaptic_decay")
            current = dynamics.integrate(state["current"], current, decay)
            after["current"] = current
        decay = self.effective("decay")
        membrane = dynamics.integrate(before, current, decay, self.decay_input)
        return membrane, {**after, "membrane": membrane}

    def call(self, inputs: Tensor) -> Tensor:
        # A SpikingModel runs the steps and does not call this.
        membrane, _ = self.step(inputs, self.initial_state(inputs))
        return ops.cast(membrane, self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> Config:
        names = (
            "decay",
            "decay_input",
            "synaptic_decay",
            "axis",
            "learn_decay",
            "learn_synaptic_decay",
            "value",
        )
        return {**super().get_config(), **parameters.arguments(self, names)}


_SPIKE_ARGUMENTS = {
    "threshold",
    "surrogate",
    "reset",
    "v_reset",
    "reset_delay",
    "detach_reset",
    "learn_threshold",
}
