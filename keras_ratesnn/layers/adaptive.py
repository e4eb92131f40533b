"""Neurons with an adaptive threshold: every spike raises it temporarily."""

from typing import Any

from keras import ops

from keras_ratesnn._core import registry
from keras_ratesnn._core.annotations import (
    Config,
    ParameterValue,
    Reset,
    Structure,
    Tensor,
)
from keras_ratesnn.layers import dynamics
from keras_ratesnn.layers._arguments import arguments_of, passed_on
from keras_ratesnn.layers._other_names import refuse_other_names
from keras_ratesnn.layers.cells import DECAY_ADVICE, LIFCell
from keras_ratesnn.layers.neurons import NeuronWithArguments
from keras_ratesnn.layers.parameters import Parameter
from keras_ratesnn.surrogates import Surrogate


@registry.register
class ALIFCell(LIFCell):
    """One time step of adaptive leaky integrate-and-fire neurons, whose equations are
    in `ALIF`.

    Example:

    >>> cell = ALIFCell(decay=0.5, adaptation_decay=0.5, adaptation=1.0)
    >>> spikes, state = cell(np.array([[1.25, 0.8]], "float32"))
    >>> # The first neuron's threshold is 1.5 now.
    >>> spikes, state = cell(np.array([[1.25, 0.8]], "float32"), state)
    >>> print(ops.convert_to_numpy(spikes), ops.convert_to_numpy(state["adaptation"]))
    [[0. 1.]] [[0.25 0.5 ]]

    Args: as in `ALIF`, but
        **kwargs: `name`, `dtype`, `trainable` of a Keras layer.

    Call arguments:
        inputs: Tensor of any shape `(batch, ...)`, the input current of this step.
        state: The state returned by the previous step; `None` for neurons before their
            first step.

    Returns:
        `(spikes, state)`: spikes of the shape of `inputs`, exactly 0 or 1; a dict of
        `"membrane"` v⁺_t and `"adaptation"` a_t.
    """

    levels = 1
    fixed_arguments = (
        # A delayed reset would need the threshold of its spike, which changes from step
        # to step.
        *(name for name in LIFCell.fixed_arguments if name != "reset_delay"),
        "adaptation_decay",
        "adaptation",
    )
    adaptation_decay = Parameter(at_least=0, below=1, advice=DECAY_ADVICE)
    adaptation = Parameter(at_least=0)

    def __init__(
        self,
        decay: ParameterValue = 0.2,
        threshold: ParameterValue = 1.0,
        *,
        decay_input: bool = False,
        adaptation_decay: ParameterValue = 0.9,
        adaptation: ParameterValue = 1.8,
        axis: int | None = -1,
        reset: Reset = "soft",
        v_reset: ParameterValue = 0.0,
        detach_reset: bool = True,
        surrogate: str | Surrogate | Config = "sigmoid",
        learn_decay: bool = False,
        learn_threshold: bool = False,
        initial_membrane: ParameterValue = 0.0,
        **kwargs: Any,
    ) -> None:
        refuse_other_names(type(self).__name__, kwargs)
        super().__init__(**passed_on(locals(), "adaptation_decay", "adaptation"))
        self.adaptation_decay = adaptation_decay
        self.adaptation = adaptation

    def initial_state(self, inputs: Tensor) -> Structure:
        membrane = super().initial_state(inputs)
        return {"membrane": membrane, "adaptation": ops.zeros_like(membrane)}

    def step(  # type: ignore[override]  # It takes no `threshold`.
        self, inputs: Tensor, state: Structure
    ) -> tuple[Tensor, Tensor, Structure]:
        membrane, adaptation = state["membrane"], state["adaptation"]
        current = ops.cast(inputs, membrane.dtype)
        membrane = dynamics.integrate(
            membrane, current, self.effective_decay(), self.decay_input
        )
        raised = self.effective("adaptation") * adaptation
        threshold = self.effective_threshold() + raised
        adaptation_decay = self.effective("adaptation_decay")
        spikes = self.fire(membrane, threshold)
        state = {
            "membrane": self.after_reset(membrane, spikes, threshold),
            "adaptation": adaptation_decay * adaptation
            + (1.0 - adaptation_decay) * spikes,
        }
        return membrane, spikes, state


@registry.register
class ALIF(NeuronWithArguments):
    """Adaptive leaky integrate-and-fire neurons, as in LSNNs: every spike raises the
    neuron's threshold temporarily.

        v⁺_0 = initial_membrane
        v_t  = decay · v⁺_{t−1} + I_t
        θ_t  = threshold + adaptation · a_{t−1}
        s_t  = 1 where v_t >= θ_t, else 0
        v⁺_t = v_t − θ_t · s_t                        reset="soft"
        v⁺_t = v_t · (1 − s_t) + v_reset · s_t        reset="hard"
        a_t  = adaptation_decay · a_{t−1} + (1 − adaptation_decay) · s_t

    The adaptation a, a running mean of the neuron's own spikes, is a memory of about
    `1 / (1 − adaptation_decay)` steps. It stays between 0 and 1, so θ_t stays between
    `threshold` and `threshold + adaptation`. The backward pass always includes it, for
    any `detach_reset`, because it is the neuron's memory. In a `SpikingModel` the
    neurons start with v⁺_0 = `initial_membrane` and a_0 = 0. Both decays, thresholds
    and membranes may be arrays or initializers, as in `LIF`.

    Example:

    >>> inputs = keras.Input((1,))
    >>> neurons = ALIF(decay=0.0, adaptation_decay=0.8, adaptation=1.0)
    >>> model = keras_ratesnn.SpikingModel(
    ...     keras.Model(inputs, neurons(inputs)), timesteps=6, return_sequences=True
    ... )
    >>> # LIF neurons would spike at every step.
    >>> print(ops.convert_to_numpy(model(np.array([[1.25]])))[0, :, 0])
    [1. 1. 0. 0. 1. 0.]

    Args:
        decay: Float in [0, 1), the fraction of the membrane that remains after one
            step; for a time constant of τ steps it is `1 − 1/τ`. Defaults to `0.2`.
        threshold: Float > 0, the threshold of a neuron at rest. Defaults to `1.0`.
        decay_input: Boolean, whether the input is scaled by 1 − `decay`, as in the
            source. Defaults to `False`.
        adaptation_decay: Float in [0, 1), the fraction of the adaptation that remains
            after one step. Defaults to `0.9`, a time constant of 10 steps.
        adaptation: Float >= 0, the threshold increase in the limit of a neuron that
            always spikes; one spike raises the threshold by
            `adaptation · (1 − adaptation_decay)`. Defaults to `1.8`, as in the source.
        axis: Integer or `None`, the channel axis of arrays and initializers, as in
            `LIF`. Defaults to `-1`.
        reset: `"soft"` subtracts the threshold θ_t from the membrane, `"hard"` sets it
            to `v_reset`. Defaults to `"soft"`.
        v_reset: Float < `threshold`, the membrane after a hard reset. Defaults to
            `0.0`.
        detach_reset: Boolean, whether the backward pass ignores the dependence of the
            reset on the spike. Defaults to `True`.
        surrogate: Name, `Surrogate` or its config, see `keras_ratesnn.surrogates`.
            Defaults to `"sigmoid"`.
        learn_decay: Boolean, whether the layer learns its `decay`, as in `LIF`.
            Defaults to `False`.
        learn_threshold: Boolean, whether it learns its `threshold`. Defaults to
            `False`.
        initial_membrane: Float < `threshold`, the membrane v⁺_0 before the first step.
            Defaults to `0.0`.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer` of a Keras layer.

    Input shape:
        Any, `(batch, ...)`: the input current.

    Output shape:
        Same as the input shape: spikes, exactly 0 or 1.

    Raises:
        ValueError: If a decay is outside [0, 1), `threshold` is not > 0, `adaptation`
            is not >= 0, or a name is unknown.
        TypeError: If an argument has the wrong type.

    Source: Bellec et al., "Long short-term memory and learning-to-learn in networks of
    spiking neurons", NeurIPS 2018.
    """

    @arguments_of(ALIFCell)
    def __init__(self, cell: ALIFCell, **kwargs: Any) -> None:
        super().__init__(cell, **kwargs)
