"""Neuron layers: what a network contains, each around the cell that holds its parameters and its step."""

import keras

from keras_ratesnn import registry
from keras_ratesnn.layers.cells import LIFCell, NeuronCell


@registry.register
class Neuron(keras.layers.Layer):
    """A layer of spiking neurons, the activation of a spiking network, around a cell.

    In a `SpikingModel` the training method runs the cell through all time steps. Called by itself, the layer advances
    neurons at rest by one step.

    Args:
        cell: A `NeuronCell`.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer` of a Keras layer.

    Raises:
        TypeError: If `cell` is not a `NeuronCell`.
    """

    def __init__(self, cell, **kwargs):
        super().__init__(**kwargs)
        if isinstance(cell, dict):
            cell = keras.saving.deserialize_keras_object(cell)
        if not isinstance(cell, NeuronCell):
            raise TypeError(
                f"`cell` must be a NeuronCell, for example LIFCell(). Received: cell={cell!r} of type {type(cell).__name__}."
            )
        self.cell = cell
        self.supports_masking = True

    def build(self, input_shape):
        if not self.cell.built:
            self.cell.build(input_shape)

    def call(self, inputs):
        spikes, _ = self.cell(inputs)
        return spikes

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "cell": keras.saving.serialize_keras_object(self.cell)}


@registry.register
class LIF(Neuron):
    """Leaky integrate-and-fire neurons: the activation of a spiking network.

        v_t  = decay · v⁺_{t−1} + I_t
        s_t  = 1 where v_t >= threshold, else 0
        v⁺_t = v_t − threshold · s_t                  reset="soft"
        v⁺_t = v_t · (1 − s_t) + v_reset · s_t        reset="hard"

    In a `SpikingModel` the neurons start at rest, v⁺_0 = 0, and run through all time steps. Called by itself, the layer
    advances neurons at rest by one step; `LIFCell` steps with a state of your own.

    Example:

    >>> lif = LIF(decay=0.5, threshold=1.0, surrogate="atan")
    >>> print(ops.convert_to_numpy(lif(np.array([[0.8, 1.5]], "float32"))))
    [[0. 1.]]

    Args:
        decay: Float in [0, 1), what is left of the membrane after one step; a time constant τ, in steps, gives
            `1 − 1/τ`. Defaults to `0.2`.
        threshold: Float > 0, the membrane value from which a neuron spikes. Defaults to `1.0`.
        reset: `"soft"` takes one threshold off the membrane, `"hard"` sets it to `v_reset`. Defaults to `"soft"`.
        v_reset: Float, the membrane after a hard reset. Defaults to `0.0`.
        detach_reset: Boolean, whether the backward pass ignores the way in which the reset depends on the spike.
            Defaults to `True`.
        surrogate: Name, `Surrogate` or its config, see `keras_ratesnn.surrogates`. Defaults to `"sigmoid"`.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer` of a Keras layer. In rate training the
            regularizer sees the firing rate, in BPTT the spikes of all steps.

    Input shape:
        Any, `(batch, ...)`: the input current.

    Output shape:
        That of the input: spikes, exactly 0 or 1.

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
        cell = LIFCell(
            decay=decay,
            threshold=threshold,
            reset=reset,
            v_reset=v_reset,
            detach_reset=detach_reset,
            surrogate=surrogate,
            dtype=kwargs.get("dtype"),
            name="cell",
        )
        super().__init__(cell, **kwargs)

    decay = property(lambda self: self.cell.decay)
    threshold = property(lambda self: self.cell.threshold)
    reset = property(lambda self: self.cell.reset)
    v_reset = property(lambda self: self.cell.v_reset)
    detach_reset = property(lambda self: self.cell.detach_reset)
    surrogate = property(lambda self: self.cell.surrogate)

    def get_config(self):
        config = super().get_config()
        del config["cell"]
        return {
            **config,
            "decay": self.decay,
            "threshold": self.threshold,
            "reset": self.reset,
            "v_reset": self.v_reset,
            "detach_reset": self.detach_reset,
            "surrogate": registry.serialize(self.surrogate),
        }
