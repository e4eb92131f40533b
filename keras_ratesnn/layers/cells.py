"""Neuron cells: the parameters of a neuron and one step of its membrane. No time loop, no training method."""

import keras
from keras import ops

from keras_ratesnn import backend, checks, dynamics, registry, surrogates, time_axis

RESETS = ("soft", "hard")


class NeuronCell(keras.layers.Layer):
    """One time step of a population of spiking neurons: the base class of `LIFCell` and of cells of your own.

    A cell is called as `spikes, state = cell(inputs, state)`. The layer `keras_ratesnn.layers.Neuron` makes a cell a part
    of a network; the training method runs it through time.

    A subclass implements `step`, in which spikes are made by `self.fire(membrane)`; that is all that training with
    `gradient="bptt"` needs. `gradient="rate"` also needs `membrane_derivative`.

    Args:
        threshold: Float > 0, the membrane value from which a neuron spikes. Defaults to `1.0`.
        surrogate: Name, `Surrogate` or its config: the derivative that stands in for that of the spike function.
            Defaults to `"sigmoid"`.
        **kwargs: `name`, `dtype`, `trainable` of a Keras layer.

    Raises:
        ValueError: If `threshold` is not > 0 or the surrogate's name is unknown.
        TypeError: If an argument is of another type.
    """

    def __init__(self, threshold=1.0, surrogate="sigmoid", **kwargs):
        super().__init__(**kwargs)
        self.threshold = checks.real("threshold", threshold, above=0, advice="A neuron at rest would spike without input.")
        self.surrogate = surrogates.get(surrogate)

    def initial_state(self, inputs):
        """The state at rest, before the first step: a membrane of zeros, like `inputs`, in float32 or wider."""
        return ops.zeros_like(inputs, dtype=time_axis.accumulation_dtype(inputs.dtype))

    def step(self, inputs, state):
        """One time step.

        Args:
            inputs: Tensor, the input current I_t.
            state: What the previous step returned, or `initial_state`.

        Returns:
            `(membrane, spikes, state)`: the membrane v_t before the reset, the spikes s_t and the state after the step.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement `step(inputs, state)` and return `(membrane, spikes, state)`."
        )

    def membrane_derivative(self, membrane, spikes, surrogate_derivative):
        """∂v_{t+1}/∂v_t, for the rate gradient: a float, or a tensor like `membrane`.

        Args:
            membrane: Tensor v_t, before the reset.
            spikes: Tensor s_t.
            surrogate_derivative: Tensor h(v_t − θ), what ∂s_t/∂v_t is taken to be.
        """
        raise NotImplementedError(
            f'{type(self).__name__} must implement `membrane_derivative` to be trained with gradient="rate". '
            'Return ∂v_{t+1}/∂v_t there, or train with gradient="bptt".'
        )

    def surrogate_derivative(self, membrane):
        """h(v_t − θ), the stand-in for ∂s_t/∂v_t."""
        return self.surrogate.derivative(membrane - self.threshold)

    def fire(self, membrane):
        """Spikes H(v_t − θ), exactly 0 or 1, with the surrogate's derivative."""
        spikes = dynamics.fire(membrane, self.threshold)
        if not backend.records_gradient():
            return spikes
        return backend.graft(spikes, membrane, self.surrogate_derivative(membrane))

    def call(self, inputs, state=None):
        if state is None:
            state = self.initial_state(inputs)
        _, spikes, state = self.step(inputs, state)
        return ops.cast(spikes, self.compute_dtype), state

    def compute_output_shape(self, input_shape, state_shape=None):
        return input_shape, input_shape if state_shape is None else state_shape

    def get_config(self):
        return {
            **super().get_config(),
            "threshold": self.threshold,
            "surrogate": registry.serialize(self.surrogate),
        }


@registry.register
class LIFCell(NeuronCell):
    """One time step of leaky integrate-and-fire neurons.

    The membrane decays, takes in the input current and spikes where it reaches the threshold; a spike resets it:

        v_t  = decay · v⁺_{t−1} + I_t
        s_t  = 1 where v_t >= threshold, else 0
        v⁺_t = v_t − threshold · s_t                  reset="soft"
        v⁺_t = v_t · (1 − s_t) + v_reset · s_t        reset="hard"

    Example:

    >>> cell = LIFCell(decay=0.5)
    >>> spikes, state = cell(np.array([[0.8, 1.5]], "float32"))
    >>> spikes, state = cell(np.array([[0.8, 0.0]], "float32"), state)
    >>> print(ops.convert_to_numpy(spikes), ops.convert_to_numpy(state).round(2))
    [[1. 0.]] [[0.2  0.25]]

    Args:
        decay: Float in [0, 1), what is left of the membrane after one step; a time constant τ, in steps, gives
            `1 − 1/τ`. Defaults to `0.2`.
        threshold: Float > 0, the membrane value from which a neuron spikes. Defaults to `1.0`.
        reset: `"soft"` takes one threshold off the membrane, `"hard"` sets it to `v_reset`. Defaults to `"soft"`.
        v_reset: Float, the membrane after a hard reset. Defaults to `0.0`.
        detach_reset: Boolean, whether the backward pass ignores the way in which the reset depends on the spike.
            Defaults to `True`.
        surrogate: Name, `Surrogate` or its config, see `keras_ratesnn.surrogates`. Defaults to `"sigmoid"`.
        **kwargs: `name`, `dtype`, `trainable` of a Keras layer.

    Call arguments:
        inputs: Tensor of any shape `(batch, ...)`, the input current of this step.
        state: The state that the previous step returned; `None` for neurons at rest.

    Returns:
        `(spikes, state)`: spikes of the shape of `inputs`, exactly 0 or 1; the membrane after the reset.

    Raises:
        ValueError: If `decay` is outside [0, 1), `threshold` is not > 0, or a name is unknown.
        TypeError: If an argument is of another type.

    Source: Yu et al., NeurIPS 2024, equation 1.
    """

    def __init__(
        self,
        decay=0.2,
        threshold=1.0,
        reset="soft",
        v_reset=0.0,
        detach_reset=True,
        surrogate="sigmoid",
        **kwargs,
    ):
        super().__init__(threshold=threshold, surrogate=surrogate, **kwargs)
        self.decay = checks.real(
            "decay",
            decay,
            at_least=0,
            below=1,
            advice="A time constant of τ steps is decay = 1 − 1/τ.",
        )
        self.reset = checks.one_of("reset", reset, RESETS)
        self.v_reset = checks.real("v_reset", v_reset)
        self.detach_reset = checks.boolean("detach_reset", detach_reset)

    def step(self, inputs, state):
        membrane = dynamics.integrate(state, ops.cast(inputs, state.dtype), self.decay)
        spikes = self.fire(membrane)
        resetting = ops.stop_gradient(spikes) if self.detach_reset else spikes
        if self.reset == "soft":
            state = dynamics.soft_reset(membrane, resetting, self.threshold)
        else:
            state = dynamics.hard_reset(membrane, resetting, self.v_reset)
        return membrane, spikes, state

    def membrane_derivative(self, membrane, spikes, surrogate_derivative):
        if self.reset == "soft":
            of_reset = dynamics.soft_reset_derivative(surrogate_derivative, self.threshold, self.detach_reset)
        else:
            of_reset = dynamics.hard_reset_derivative(membrane, spikes, surrogate_derivative, self.v_reset, self.detach_reset)
        return self.decay * of_reset

    def get_config(self):
        return {
            **super().get_config(),
            "decay": self.decay,
            "reset": self.reset,
            "v_reset": self.v_reset,
            "detach_reset": self.detach_reset,
        }
