"""What a neuron cell is: the contract that all cells, those of one's own too, fill in."""

from keras import ops

from keras_ratesnn import dynamics, surrogates
from keras_ratesnn._core import backend, checks, registry, time_axis
from keras_ratesnn.layers._cell_guards import GuardedCell


class NeuronCell(GuardedCell):
    """One time step of a population of spiking neurons: the base class of all cells, and of cells of your own.

    A cell is called as `spikes, state = cell(inputs, state)`. The layer `keras_ratesnn.layers.Neuron` makes a cell a part
    of a network; the training method runs it through time.

    A subclass implements `step`, in which spikes are made by `self.fire(membrane)`; that is all that training with
    `gradient="bptt"` needs. `gradient="rate"` also needs `membrane_derivative`, and `rate_parameters` with
    `parameter_derivatives` if the cell learns parameters of its own.

    Example, a neuron whose membrane saturates before it integrates:

    >>> @keras.saving.register_keras_serializable(package="my_neurons")
    ... class SaturatingCell(keras_ratesnn.layers.NeuronCell):
    ...     def step(self, inputs, state):
    ...         membrane = 0.5 * ops.tanh(state) + ops.cast(inputs, state.dtype)
    ...         spikes = self.fire(membrane)
    ...         return membrane, spikes, membrane - self.threshold * ops.stop_gradient(spikes)
    ...     def membrane_derivative(self, membrane, spikes, surrogate_derivative):
    ...         after_reset = membrane - self.threshold * spikes
    ...         return 0.5 * (1.0 - ops.square(ops.tanh(after_reset)))
    >>> inputs = keras.Input((4,))
    >>> outputs = keras.layers.Dense(2)(keras_ratesnn.layers.Neuron(SaturatingCell())(keras.layers.Dense(8)(inputs)))
    >>> model = keras_ratesnn.SpikingModel(keras.Model(inputs, outputs), timesteps=4, gradient="rate")
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0)

    Args:
        threshold: Float > 0, the membrane value from which a neuron spikes. Defaults to `1.0`.
        surrogate: Name, `Surrogate` or its config: the derivative that stands in for that of the spike function.
            Defaults to `"sigmoid"`.
        **kwargs: `name`, `dtype`, `trainable` of a Keras layer.

    Raises:
        ValueError: If `threshold` is not > 0 or the surrogate's name is unknown.
        TypeError: If an argument is of another type.
    """

    fixed_arguments = ("threshold", "surrogate")

    def __init__(self, threshold=1.0, surrogate="sigmoid", **kwargs):
        # The state stays in float32 in half precision: Keras must not cast what a call is given.
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True
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
            `(membrane, spikes, state)`: the membrane v_t before the reset, the spikes s_t and the state after the step,
            a tensor or a structure of tensors.
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

    def rate_parameters(self):
        """The learnable parameters, for the rate gradient: a list of tensors that broadcast to the membrane."""
        return []

    def parameter_derivatives(self, membrane, spikes, state, surrogate_derivative):
        """How the step sees each of `rate_parameters` directly, for the rate gradient.

        Args:
            membrane: Tensor v_t, before the reset.
            spikes: Tensor s_t.
            state: The state after the step.
            surrogate_derivative: Tensor h(v_t − θ).

        Returns:
            List of pairs `(∂v_{t+1}/∂p, ∂s_t/∂p)` of the partial derivatives at fixed v_t: floats or tensors, the second `None`
            where the spike does not see p.
        """
        return []

    def effective_threshold(self):
        """θ as the step uses it: a float, or a tensor if it is learned."""
        return self.threshold

    def surrogate_derivative(self, membrane):
        """h(v_t − θ), the stand-in for ∂s_t/∂v_t."""
        return self.surrogate.derivative(membrane - self.effective_threshold())

    def fire(self, membrane):
        """Spikes H(v_t − θ), exactly 0 or 1, with the surrogate's derivative."""
        threshold = self.effective_threshold()
        spikes = dynamics.fire(membrane, threshold)
        if not backend.grad_enabled():
            return spikes
        distance = membrane - threshold
        return backend.graft(spikes, distance, ops.stop_gradient(self.surrogate.derivative(distance)))

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
