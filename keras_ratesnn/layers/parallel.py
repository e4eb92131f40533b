"""Parallel spiking neurons (PSN): the membrane is a weighted sum of the inputs of
several steps, without a reset."""

from typing import Any

from keras_ratesnn._core import registry
from keras_ratesnn.layers._arguments import arguments_of
from keras_ratesnn.layers.neurons import NeuronWithArguments
from keras_ratesnn.layers.parallel_cells import MaskedPSNCell, PSNCell, SlidingPSNCell


@registry.register
class PSN(NeuronWithArguments):
    """Parallel spiking neurons: the membrane of each step is a learned sum of the
    inputs of all steps, later ones included.

        v_t = Σ_j W_tj I_j + b_t
        s_t = 1 where v_t >= 0, else 0

    There is no state and no reset. The weights W, `(T, T)`, and the biases b, `(T, 1)`,
    are shared by all neurons of the layer. The layer runs in multi-step mode, for its
    number of time steps alone; not in a stream.

    Under `"rate"` these weights need the input and the surrogate derivative of every
    step in the backward pass: 2T numbers a neuron, so the memory of such a layer grows
    with T. With `trainable=False` it does not.

    Example:

    >>> inputs = keras.Input((4,))
    >>> outputs = keras.layers.Dense(2)(PSN(timesteps=3)(keras.layers.Dense(8)(inputs)))
    >>> model = keras_ratesnn.SpikingModel(keras.Model(inputs, outputs), timesteps=3)
    >>> model(np.ones((1, 3, 4))).shape[1]
    2

    Args:
        timesteps: Integer T >= 1, the number of time steps that the network runs for.
        threshold: Float > 0; the biases start at −threshold. Defaults to `1.0`.
        surrogate: Name, `Surrogate` or its config, see `keras_ratesnn.surrogates`.
            Defaults to `"sigmoid"`.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer` of a Keras layer.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If an argument has the wrong type.

    Source: Fang et al., "Parallel Spiking Neurons with High Efficiency and Ability to
    Learn Long-term Dependencies", NeurIPS 2023.
    """

    @arguments_of(PSNCell)
    def __init__(self, cell: PSNCell, **kwargs: Any) -> None:
        super().__init__(cell, **kwargs)


@registry.register
class MaskedPSN(NeuronWithArguments):
    """Parallel spiking neurons whose weights for later steps, and for steps longer ago
    than `order`, are masked.

        v_t = Σ_j W_tj (λ M_tj + 1 − λ) I_j + b_t
                M_tj = 1 where t − order < j <= t, else 0
        s_t = 1 where v_t >= 0, else 0

    λ is `mask`. Training may begin with 0, as `PSN`, and end with 1, where a step
    depends on the last `order` inputs: `callbacks.RaiseMask` raises it. While it is
    below 1 the layer needs all steps at once, as `PSN` does; with 1 it also runs in
    single-step mode and in a stream. The network may run for fewer steps than
    `timesteps`.

    Memory under `"rate"` is that of `PSN`.

    Example:

    >>> inputs = keras.Input((4,))
    >>> neurons = MaskedPSN(timesteps=3, order=2, mask=0.0)
    >>> model = keras_ratesnn.SpikingModel(
    ...     keras.Model(inputs, neurons(inputs)), timesteps=3
    ... )
    >>> neurons.mask = 1.0
    >>> model.step_mode = "single"

    Args:
        timesteps: Integer T >= 1, the largest number of time steps.
        order: Integer from 1 to T: the number of inputs, the present one included, that
            reach a membrane.
        threshold: Float > 0; the biases start at −threshold. Defaults to `1.0`.
        mask: Float from 0 to 1, λ. It can be set at any time. Defaults to `1.0`.
        surrogate: Name, `Surrogate` or its config, see `keras_ratesnn.surrogates`.
            Defaults to `"sigmoid"`.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer` of a Keras layer.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If an argument has the wrong type.

    Source: Fang et al., NeurIPS 2023. SpikingJelly's `MaskedPSN` begins with λ = 0.
    """

    @arguments_of(MaskedPSNCell)
    def __init__(self, cell: MaskedPSNCell, **kwargs: Any) -> None:
        super().__init__(cell, **kwargs)

    @property
    def mask(self) -> float:
        """λ. It can be set."""
        return self.cell.mask

    @mask.setter
    def mask(self, value: float) -> None:
        self.cell.mask = value


@registry.register
class SlidingPSN(NeuronWithArguments):
    """Parallel spiking neurons whose membrane is a learned sum of the last `order`
    inputs, with the same weights at every step.

        v_t = Σ_{i<order} w_i I_{t−order+1+i} + b   I_t = 0 before the first step
        s_t = 1 where v_t >= 0, else 0

    The last weight is that of the present input. The network may run for any number of
    steps, in both step modes and in a stream. All neurons of the layer share the
    weights. Under `"rate"` they need `order` + 1 numbers a neuron.

    Example:

    >>> neurons = SlidingPSN(order=2)
    >>> inputs = keras.Input((1,))
    >>> model = keras_ratesnn.SpikingModel(
    ...     keras.Model(inputs, neurons(inputs)), timesteps=3, return_sequences=True
    ... )
    >>> print(
    ...     ops.convert_to_numpy(model(np.array([[[0.8], [0.8], [0.0]]], "float32")))[
    ...         0, :, 0
    ...     ]
    ... )
    [0. 1. 0.]

    Args:
        order: Integer >= 1, the number of inputs, the present one included, that reach
            a membrane.
        threshold: Float > 0; the bias starts at −threshold. Defaults to `1.0`.
        surrogate: Name, `Surrogate` or its config, see `keras_ratesnn.surrogates`.
            Defaults to `"sigmoid"`.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer` of a Keras layer.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If an argument has the wrong type.

    Source: Fang et al., NeurIPS 2023.
    """

    @arguments_of(SlidingPSNCell)
    def __init__(self, cell: SlidingPSNCell, **kwargs: Any) -> None:
        super().__init__(cell, **kwargs)
