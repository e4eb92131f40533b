"""The interface that training methods implement.

A `GradientMethod` defines how a network is trained through time. Each call of the model
creates a `Run`. The method makes a `Network` of it, a list of nodes with a *handler*
each, lets its steps run, and returns its outputs. It chooses the nodes, what is carried
from a step to the next, whether rates are recorded, and the loop over the steps.

A handler uses the facts of an operation (`handler.kind`, see
`keras_ratesnn.layer_kinds`), never its class.
"""

from collections.abc import Sequence

import keras

from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._core.registry import Configured
from keras_ratesnn.gradients.run import Run


class GradientMethod(Configured):
    """Base class of training methods, including custom ones.

    A subclass implements `call`, and `get_config` if its constructor has arguments.
    Register it with `keras.saving.register_keras_serializable` so that models that use
    it can be saved.

    Example, BPTT with half its gradient:

    >>> class HalfGradient(keras_ratesnn.gradients.GradientMethod):
    ...     def call(self, run):
    ...         outputs = keras_ratesnn.gradients.BPTT().call(run)
    ...         return keras_ratesnn.gradients.extend.graft(outputs, outputs, 0.5)
    >>> inputs = keras.Input((4,))
    >>> network = keras.Model(
    ...     inputs, keras.layers.Dense(2)(keras_ratesnn.layers.LIF()(inputs))
    ... )
    >>> model = keras_ratesnn.SpikingModel(
    ...     network, timesteps=4, gradient=HalfGradient()
    ... )
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0)
    """

    _remedy = "Make a new one: model.gradient = {kind}({name}=...)."
    runs_means = False
    """Whether `call` also runs readouts and what follows them and `layers.TimeMean`;
    otherwise they run as in inference."""

    @property
    def uses_random_numbers(self) -> bool:
        """Whether `call` draws random numbers. If so, the model provides a generator,
        `run.seed_generator`."""
        return False

    def call(self, run: Run) -> Structure:
        """The outputs of a call of the model.

        Args:
            run: `Run`.

        Returns:
            Tensors in the structure of the network's outputs: time means `(batch,
            ...)`, or all steps `(batch, T, ...)` if `run.return_sequences`.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `call(run)`.")

    def check(self, neurons: Sequence[keras.layers.Layer]) -> None:
        """Raises ValueError if the method cannot train one of these neuron layers.
        Called before anything runs.

        Args:
            neurons: List of `keras_ratesnn.layers.Neuron`.
        """

    def check_timesteps(self, timesteps: int) -> None:
        """Raises ValueError if the method cannot train with this number of time steps.
        Called before training begins."""
