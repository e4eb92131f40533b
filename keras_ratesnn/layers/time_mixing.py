"""The base class of layers that mix time steps."""

from typing import Any

from keras import ops

from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn.layer_kinds import TIME_MIXING, LayerKind
from keras_ratesnn.layers.parameters import WeightsInFloat32


class TimeMixing(WeightsInFloat32):
    """Base class of layers whose output at a time step depends on inputs of other
    steps: filters and delays in time.

    In a network, which is of one time step, such a layer is called like any other. A
    `SpikingModel` hands it its inputs in the order of the steps. A subclass implements
    `initial_state` and `step`. It may also implement `over_time`, all steps at once,
    which is faster in multi-step mode; a layer that looks ahead implements `over_time`
    alone, and does not run in single-step mode or in a stream. In half precision its
    weights stay in float32, as those of neurons do.

    Its gradient is exact with `"bptt"` and `Rate(windows=T)`. With fewer windows the
    layer sees inputs that are constant within each window, and `"sltt"` and `"ottt"`
    take what it carries from step to step as a constant.

    Example, a low-pass filter:

    >>> @keras.saving.register_keras_serializable(package="my_layers")
    ... class LowPass(keras_ratesnn.layers.TimeMixing):
    ...     def initial_state(self, inputs):
    ...         return ops.zeros_like(inputs)
    ...
    ...     def step(self, inputs, state):
    ...         state = 0.5 * state + 0.5 * inputs
    ...         return state, state
    >>> inputs = keras.Input((1,))
    >>> network = keras.Model(inputs, keras_ratesnn.layers.IF()(LowPass()(inputs)))
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4, return_sequences=True)
    >>> print(ops.convert_to_numpy(model(np.ones((1, 1), "float32")))[0, :, 0])
    [0. 1. 1. 1.]

    Args:
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer` of a Keras layer.
    """

    layer_kind = LayerKind(role=TIME_MIXING)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def initial_state(self, inputs: Tensor) -> Structure:
        """The state of the layer before the first step: tensors `(batch, ...)`, which
        keep their dtypes.

        Args:
            inputs: Tensor `(batch, ...)`, the input of the first step.
        """
        raise NotImplementedError(
            f"Layer {self.name!r} of type {type(self).__name__} needs all time steps "
            "at once: it does not implement `initial_state(inputs)` and "
            '`step(inputs, state)`. Use step_mode="multi".'
        )

    def step(self, inputs: Tensor, state: Structure) -> tuple[Tensor, Structure]:
        """One time step.

        Args:
            inputs: Tensor `(batch, ...)`, the input of this step; zeros where the step
                is padding.
            state: What the previous step, or `initial_state`, returned.

        Returns:
            `(outputs, state)`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement `step(inputs, state)`."
        )

    def over_time(self, inputs: Tensor) -> Tensor:
        """All time steps.

        Args:
            inputs: Tensor `(batch, T, ...)`; zeros where steps are padding.

        Returns:
            Tensor `(batch, T, ...)`, the outputs of all steps. By default those of
            `step`, one after the other.
        """
        state, outputs = self.initial_state(inputs[:, 0]), []
        for at_step in ops.unstack(inputs, axis=1):
            output, state = self.step(at_step, state)
            outputs.append(output)
        return ops.stack(outputs, axis=1)

    def in_time(self, training: bool) -> Any:
        """The object that runs over time: this layer, or an object with the same
        methods and `variables`, if inference differs.

        It is called once for many steps, before they run. It must not read weights: the
        steps read them, because in a compiled loop other tensors stand for the weights.

        Args:
            training: Boolean, whether the network behaves as in training.
        """
        return self

    def call(self, inputs: Tensor) -> Tensor:
        """The output of a sequence of one step. A SpikingModel does not call this."""
        return ops.cast(self.over_time(inputs[:, None])[:, 0], self.compute_dtype)
