"""Current-based neurons: the input drives a synaptic current, which drives the
membrane."""

from typing import Any

from keras import ops

from keras_ratesnn._core import checks, registry
from keras_ratesnn._core.annotations import (
    Config,
    ParameterValue,
    Reset,
    Structure,
    Tensor,
)
from keras_ratesnn.layers import dynamics
from keras_ratesnn.layers._arguments import arguments_of, passed_on
from keras_ratesnn.layers.cells import DECAY_ADVICE, LIFCell
from keras_ratesnn.layers.neuron_cell import NeuronCell, Targets
from keras_ratesnn.layers.neurons import NeuronWithArguments
from keras_ratesnn.layers.parameters import LOGIT, Parameter
from keras_ratesnn.surrogates import Surrogate


@registry.register
class CuBaLIFCell(LIFCell):
    """One time step of current-based leaky integrate-and-fire neurons, whose equations
    are in `CuBaLIF`.

    Example:

    >>> cell = CuBaLIFCell(decay=0.5, synaptic_decay=0.5)
    >>> spikes, state = cell(np.array([[0.8, 1.5]], "float32"))
    >>> # 0.5 · 0.8 + 0.4, and 0.5 · 0.5 + 0.75.
    >>> spikes, state = cell(np.array([[0.0, 0.0]], "float32"), state)
    >>> print(ops.convert_to_numpy(spikes), ops.convert_to_numpy(state["current"]))
    [[0. 1.]] [[0.4  0.75]]

    Args: as in `CuBaLIF`, but
        **kwargs: `name`, `dtype`, `trainable` of a Keras layer.

    Call arguments:
        inputs: Tensor of any shape `(batch, ...)`, the input of this step.
        state: The state returned by the previous step; `None` for neurons before their
            first step.

    Returns:
        `(spikes, state)`: spikes of the shape of `inputs`, exactly 0 or 1; a dict of
        `"current"` i_t and `"membrane"` v⁺_t, or with a delayed reset of i_t, v_t and
        `"spikes"` s_t.
    """

    levels = 1
    fixed_arguments = (
        *LIFCell.fixed_arguments,
        "synaptic_decay",
        "learn_synaptic_decay",
    )
    synaptic_decay = Parameter(LOGIT, at_least=0, below=1, advice=DECAY_ADVICE)
    targets = Targets(nir="CubaLIF")

    def __init__(
        self,
        decay: ParameterValue = 0.2,
        threshold: ParameterValue = 1.0,
        *,
        decay_input: bool = False,
        synaptic_decay: ParameterValue = 0.5,
        axis: int | None = -1,
        reset: Reset = "soft",
        v_reset: ParameterValue = 0.0,
        detach_reset: bool = True,
        reset_delay: bool = False,
        surrogate: str | Surrogate | Config = "sigmoid",
        learn_decay: bool = False,
        learn_synaptic_decay: bool = False,
        learn_threshold: bool = False,
        initial_membrane: ParameterValue = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            **passed_on(locals(), "synaptic_decay", "learn_synaptic_decay")
        )
        self.learn_synaptic_decay = checks.boolean(
            "learn_synaptic_decay", learn_synaptic_decay
        )
        self.synaptic_decay = synaptic_decay

    def initial_state(self, inputs: Tensor) -> Structure:
        state = super().initial_state(inputs)
        if not self.reset_delay:
            state = {"membrane": state}
        return {"current": NeuronCell.initial_state(self, inputs), **state}

    def step(  # type: ignore[override]  # It takes no `threshold`.
        self, inputs: Tensor, state: Structure
    ) -> tuple[Tensor, Tensor, Structure]:
        decay = self.effective("synaptic_decay")
        current = dynamics.integrate(
            state["current"], ops.cast(inputs, state["current"].dtype), decay
        )
        before = state if self.reset_delay else state["membrane"]
        membrane, spikes, after = super().step(current, before)
        if not self.reset_delay:
            after = {"membrane": after}
        return membrane, spikes, {"current": current, **after}


@registry.register
class CuBaLIF(NeuronWithArguments):
    """Current-based leaky integrate-and-fire neurons (CuBa-LIF): the input drives a
    current, which drives the membrane.

    They are also called second-order or synaptic neurons.

        v⁺_0 = initial_membrane
        i_t  = synaptic_decay · i_{t−1} + I_t
        v_t  = decay · v⁺_{t−1} + i_t
        s_t  = 1 where v_t >= threshold, else 0
        v⁺_t = v_t − threshold · s_t                  reset="soft"
        v⁺_t = v_t · (1 − s_t) + v_reset · s_t        reset="hard"

    A spike resets the membrane, but not the current. In a `SpikingModel` the neurons
    start with i_0 = 0 and v⁺_0 = `initial_membrane`. Decays, thresholds and membranes
    may be arrays or initializers, as in `LIF`.

    Example, an input at the first step only:

    >>> inputs = keras.Input((1,))
    >>> neurons = CuBaLIF(decay=0.5, synaptic_decay=0.5)
    >>> model = keras_ratesnn.SpikingModel(
    ...     keras.Model(inputs, neurons(inputs)), timesteps=4, return_sequences=True
    ... )
    >>> outputs = model(np.array([[[1.5], [0.0], [0.0], [0.0]]]))
    >>> print(ops.convert_to_numpy(outputs)[0, :, 0])
    [1. 1. 0. 0.]

    Args:
        decay: Float in [0, 1), the fraction of the membrane that remains after one
            step; for a time constant of τ steps it is `1 − 1/τ`. Defaults to `0.2`.
        threshold: Float > 0, the membrane value at which a neuron spikes. Defaults to
            `1.0`.
        decay_input: Boolean, whether the current i_t, not the input I_t, is scaled by
            1 − `decay`. Defaults to `False`.
        synaptic_decay: Float in [0, 1), the fraction of the synaptic current that
            remains after one step; `0.0` gives the neurons of `LIF`. Defaults to `0.5`.
        axis: Integer or `None`, the channel axis of arrays and initializers, as in
            `LIF`. Defaults to `-1`.
        reset: `"soft"` subtracts the threshold from the membrane, `"hard"` sets it to
            `v_reset`. Defaults to `"soft"`.
        v_reset: Float < `threshold`, the membrane after a hard reset. Defaults to
            `0.0`.
        detach_reset: Boolean, whether the backward pass ignores the dependence of the
            reset on the spike. Defaults to `True`.
        reset_delay: Boolean, whether a spike resets the membrane one step later, see
            `LIF`. Defaults to `False`.
        surrogate: Name, `Surrogate` or its config, see `keras_ratesnn.surrogates`.
            Defaults to `"sigmoid"`.
        learn_decay: Boolean, whether the layer learns its `decay`, as in `LIF`.
            Defaults to `False`.
        learn_synaptic_decay: Boolean, whether it learns its `synaptic_decay`, in
            `synaptic_decay_logit`. Defaults to `False`.
        learn_threshold: Boolean, whether it learns its `threshold`. Defaults to
            `False`.
        initial_membrane: Float < `threshold`, the membrane v⁺_0 before the first step.
            Defaults to `0.0`.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer` of a Keras layer.

    Input shape:
        Any, `(batch, ...)`: the input.

    Output shape:
        Same as the input shape: spikes, exactly 0 or 1.

    Raises:
        ValueError: If a decay is outside [0, 1), `threshold` is not > 0, or a name is
            unknown.
        TypeError: If an argument has the wrong type.

    Source: Neftci, Mostafa and Zenke, "Surrogate Gradient Learning in Spiking Neural
    Networks", 2019, equations 4 and 5, where the current reaches the membrane one step
    later; here it does so immediately, as in snnTorch's `Synaptic` and Lava's CUBA
    neurons.
    """

    @arguments_of(CuBaLIFCell)
    def __init__(self, cell: CuBaLIFCell, **kwargs: Any) -> None:
        super().__init__(cell, **kwargs)
