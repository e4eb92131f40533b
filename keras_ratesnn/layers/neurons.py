"""Neuron layers: what a network contains, each around the cell that holds its parameters and its step."""

import warnings

import keras
from keras import ops

from keras_ratesnn._core import checks, registry
from keras_ratesnn.layer_kinds import NEURON, LayerKind
from keras_ratesnn.layers._cell_guards import from_cell
from keras_ratesnn.layers._other_names import refuse_other_names
from keras_ratesnn.layers.cells import IFCell, LIFCell, ParametricLIFCell, without_ignored_reset
from keras_ratesnn.layers.neuron_cell import NeuronCell
from keras_ratesnn.layers.threshold_stabilizer import StabilizedCell, ThresholdStabilizer


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

    layer_kind = LayerKind(role=NEURON)

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

    def call(self, inputs, training=None):
        # A SpikingModel runs the cell, and never comes here.
        if training:
            _warn_of_one_time_step(self)
        spikes, _ = self.cell(inputs)
        return spikes

    couples_neurons = False
    """Whether what the layer does to its cell in time depends on all of its neurons."""

    def cell_in_time(self, training):
        """What is run through time steps: the cell, or something in its place that does more.

        Args:
            training: Boolean, whether the network behaves as in training.
        """
        return self.cell

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "cell": keras.saving.serialize_keras_object(self.cell)}


class IntegrateAndFire(Neuron):
    """What the layers of integrate-and-fire neurons share: the arguments of their cell as attributes and config."""

    threshold = from_cell("threshold")
    reset = from_cell("reset")
    v_reset = from_cell("v_reset")
    detach_reset = from_cell("detach_reset")
    surrogate = from_cell("surrogate")
    learn_threshold = from_cell("learn_threshold")

    def get_config(self):
        config = super().get_config()
        del config["cell"]
        of_cell = self.cell.get_config()
        for shared in ("name", "trainable", "dtype"):
            del of_cell[shared]
        return {**config, **of_cell}

    @classmethod
    def from_config(cls, config):
        return super().from_config(without_ignored_reset(config))


@registry.register
class LIF(IntegrateAndFire):
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
        v_reset: Float, the membrane after a hard reset; 0 with a soft one. Defaults to `0.0`.
        detach_reset: Boolean, whether the backward pass ignores the way in which the reset depends on the spike.
            Defaults to `True`.
        surrogate: Name, `Surrogate` or its config, see `keras_ratesnn.surrogates`. Defaults to `"sigmoid"`.
        learn_threshold: Boolean, whether the layer learns its threshold, one for all its neurons, from `threshold` on.
            Defaults to `False`.
        threshold_stabilizer: Boolean, whether in training the threshold of a step follows the mean and the deviation of all
            membranes of the layer, so that a like share of them spikes at every step (OTS of Zhu et al., ICLR 2024). In
            inference it is the running mean of these. Its authors train it by `gradient="sltt"`; `"rate"` cannot.
            Defaults to `False`.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer` of a Keras layer. In rate training the
            regularizer sees the firing rate, in BPTT the spikes of all steps.

    Input shape:
        Any, `(batch, ...)`: the input current.

    Output shape:
        That of the input: spikes, exactly 0 or 1.

    Raises:
        ValueError: If `decay` is outside [0, 1), `threshold` is not > 0, `v_reset` is not 0 with a soft reset, a name is
            unknown, or a threshold is to be stabilised and learned at once.
        TypeError: If an argument is of another type, or is named as in another library.

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
        learn_threshold=False,
        threshold_stabilizer=False,
        **kwargs,
    ):
        cell = LIFCell(
            decay, threshold, reset, v_reset, detach_reset, surrogate, learn_threshold, **shared_with_cell(type(self), kwargs)
        )
        super().__init__(cell, **kwargs)
        self.threshold_stabilizer = checks.boolean("threshold_stabilizer", threshold_stabilizer)
        if threshold_stabilizer and learn_threshold:
            raise ValueError(
                "`threshold_stabilizer=True` sets the thresholds from the membranes. Received: learn_threshold=True with it. "
                "Leave one of the two out."
            )
        self.stabilizer = ThresholdStabilizer(threshold, name="stabilizer") if threshold_stabilizer else None

    decay = from_cell("decay")

    @property
    def couples_neurons(self):
        return self.threshold_stabilizer

    def build(self, input_shape):
        super().build(input_shape)
        if self.stabilizer is not None and not self.stabilizer.built:
            self.stabilizer.build()

    def call(self, inputs, training=None):
        if self.stabilizer is None or (training and self.trainable):
            # The first step of a stabilised layer is that of its cell.
            return super().call(inputs, training)
        cell = self.cell_in_time(training=False)
        _, spikes, _ = cell.step(inputs, cell.initial_state(inputs))
        return ops.cast(spikes, self.compute_dtype)

    def cell_in_time(self, training):
        if self.stabilizer is None:
            return self.cell
        return StabilizedCell(self.cell, self.stabilizer, training and self.trainable)

    def get_config(self):
        return {**super().get_config(), "threshold_stabilizer": self.threshold_stabilizer}


@registry.register
class IF(IntegrateAndFire):
    """Integrate-and-fire neurons: those of `LIF` without a leak, `decay = 1`.

    Example:

    >>> neurons = IF(threshold=1.0)
    >>> print(ops.convert_to_numpy(neurons(np.array([[0.8, 1.5]], "float32"))))
    [[0. 1.]]

    Args: as in `LIF`, without `decay`.
    """

    def __init__(
        self,
        threshold=1.0,
        reset="soft",
        v_reset=0.0,
        detach_reset=True,
        surrogate="sigmoid",
        learn_threshold=False,
        **kwargs,
    ):
        cell = IFCell(
            threshold, reset, v_reset, detach_reset, surrogate, learn_threshold, **shared_with_cell(type(self), kwargs)
        )
        super().__init__(cell, **kwargs)


@registry.register
class ParametricLIF(IntegrateAndFire):
    """Leaky integrate-and-fire neurons that learn their decay, kept inside (0, 1) by a sigmoid.

    Under the rate gradient the decay gets the exact local derivative of the firing rate, ∂r/∂λ, collected forward in time
    beside the rate and its eligibility; so does the threshold with `learn_threshold=True`.

    Example:

    >>> neurons = ParametricLIF(decay=0.5, per_channel=True)
    >>> spikes = neurons(np.array([[0.8, 1.5]], "float32"))
    >>> print(ops.convert_to_numpy(neurons.cell.effective_decay()))
    [[0.5 0.5]]

    Args: as in `LIF`, and
        decay: Float in (0, 1), where the decay starts. Defaults to `0.5`, a time constant of 2 steps.
        per_channel: Boolean, whether every channel learns a decay of its own, not the layer one for all its neurons.
            Defaults to `False`.
        axis: Integer, the axis of the channels: 1 for `channels_first` data. Defaults to `-1`.

    Source: Fang et al., "Incorporating Learnable Membrane Time Constant to Enhance Learning of Spiking Neural Networks",
    ICCV 2021.
    """

    def __init__(
        self,
        decay=0.5,
        threshold=1.0,
        reset="soft",
        v_reset=0.0,
        detach_reset=True,
        surrogate="sigmoid",
        learn_threshold=False,
        per_channel=False,
        axis=-1,
        **kwargs,
    ):
        cell = ParametricLIFCell(
            decay,
            threshold,
            reset,
            v_reset,
            detach_reset,
            surrogate,
            learn_threshold,
            per_channel,
            axis,
            **shared_with_cell(type(self), kwargs),
        )
        super().__init__(cell, **kwargs)

    decay = from_cell("decay")
    per_channel = from_cell("per_channel")
    axis = from_cell("axis")


def shared_with_cell(layer_class, kwargs):
    """The arguments of a layer that its cell shares."""
    refuse_other_names(layer_class.__name__, kwargs)
    return {"dtype": kwargs.get("dtype"), "name": "cell"}


def _warn_of_one_time_step(layer):
    """Said once per process: a network that is fitted as it is has one such layer after the other."""
    global _warned_of_one_time_step
    if not _warned_of_one_time_step:
        _warned_of_one_time_step = True
        warnings.warn(
            f"{type(layer).__name__} {layer.name!r} is trained outside of a SpikingModel, at one time step: its neurons begin "
            "at rest and spike at most once. To run the network through time: "
            "keras_ratesnn.SpikingModel(network, timesteps=4), and compile and fit that.",
            stacklevel=3,
        )


_warned_of_one_time_step = False
