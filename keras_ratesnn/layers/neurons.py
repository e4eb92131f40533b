"""Neuron layers. Each wraps a cell that holds the parameters and computes one step."""

import warnings
from typing import Any, Self

import keras
from keras import ops

from keras_ratesnn._core import checks, configs, keras_internals, parts, registry
from keras_ratesnn._core.annotations import Config, Shape, Tensor
from keras_ratesnn._core.other_names import RefusesOtherNames
from keras_ratesnn.layer_kinds import NEURON, LayerKind
from keras_ratesnn.layers._arguments import arguments_of, from_cell, set_in_cell
from keras_ratesnn.layers._other_names import OTHER_NAMES
from keras_ratesnn.layers.cells import (
    IFCell,
    LIFCell,
    ParametricLIFCell,
    without_ignored_reset,
)
from keras_ratesnn.layers.neuron_cell import NeuronCell
from keras_ratesnn.layers.parameters import Parameter
from keras_ratesnn.layers.threshold_stabilizer import (
    StabilizedCell,
    ThresholdStabilizer,
)


@registry.register
class Neuron(configs.ConfigOfAttributes, keras.layers.Layer):
    """A layer of spiking neurons, the activation of a spiking network. It wraps a cell.

    In a `SpikingModel` the training method runs the cell over all time steps. Outside a
    `SpikingModel`, the layer advances neurons at rest by one step.

    Args:
        cell: A `NeuronCell`.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer` of a Keras layer.

    Raises:
        TypeError: If `cell` is not a `NeuronCell`.
    """

    layer_kind = LayerKind(
        role=NEURON,
        most_timesteps=lambda layer: layer.cell.most_timesteps,
        exact_timesteps=lambda layer: layer.cell.exact_timesteps,
    )
    in_config: tuple[str, ...] = ("cell",)

    def __init__(self, cell: NeuronCell | Config, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        cell = parts.deserialized(cell)
        if not isinstance(cell, NeuronCell):
            raise checks.wrong_type("cell", "a NeuronCell, for example LIFCell()", cell)
        self.cell = cell
        if not self.trainable:
            # Keras freezes only the layers that a layer has when it is frozen.
            cell.trainable = False
        self.supports_masking = True

    def build(self, input_shape: Shape) -> None:
        parts.build(self.cell, input_shape)
        # A shared layer may be given inputs of another shape than the one it is built
        # for.
        self.input_spec = self.cell.input_spec

    def __call__(self, inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if isinstance(inputs, (list, tuple)):
            raise checks.wrong_type(
                "inputs", "a tensor or an array", inputs, "Convert it with np.asarray."
            )
        if not isinstance(inputs, keras.KerasTensor) and not keras_internals.in_call():
            _warn_of_one_time_step(self)
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        # A SpikingModel runs the cell and does not call this.
        if training:
            _warn_of_one_time_step(self)
        spikes, _ = self.cell(inputs)
        return spikes

    @property
    def couples_neurons(self) -> bool:
        """Whether the time loop of the layer makes neurons depend on each other."""
        return False

    def cell_in_time(self, training: bool) -> Any:
        """The cell to run over time: the layer's cell, or a replacement that extends
        it.

        It is called once for many steps, before they run. It must not read weights: the
        steps read them, because in a compiled loop other tensors stand for the weights.

        Args:
            training: Boolean, whether the network behaves as in training.
        """
        return self.cell

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


class NeuronWithArguments(RefusesOtherNames, Neuron):
    """Base class of layers that have the arguments of their cell, see `arguments_of`:
    as attributes, and in their config."""

    other_names = OTHER_NAMES
    in_config: tuple[str, ...] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cell_class = getattr(vars(cls).get("__init__"), "cell_class", NeuronCell)
        for name in () if cell_class is NeuronCell else cell_class.fixed_arguments:
            setattr(cls, name, from_cell(name))
            if isinstance(getattr(cell_class, name, None), Parameter):
                setattr(cls, f"set_{name}", set_in_cell(f"set_{name}"))

    def get_config(self) -> Config:
        cell_config = self.cell.get_config()
        for shared in ("name", "trainable", "dtype"):
            del cell_config[shared]
        # Only the cell has weights to train, and its config is part of this one.
        trainable = self.trainable and self.cell.trainable
        return {**super().get_config(), **cell_config, "trainable": trainable}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return super().from_config(without_ignored_reset(config))


@registry.register
class LIF(NeuronWithArguments):
    """Leaky integrate-and-fire neurons: the activation of a spiking network.

        v⁺_0 = initial_membrane
        v_t  = decay · v⁺_{t−1} + I_t
        s_t  = 1 where v_t >= threshold, else 0
        v⁺_t = v_t − threshold · s_t                  reset="soft"
        v⁺_t = v_t · (1 − s_t) + v_reset · s_t        reset="hard"

    With `decay_input=True` the input is (1 − decay) · I_t. With `reset_delay=True` a
    spike resets the membrane one step later:

        v_t  = decay · v_{t−1} + I_t − threshold · s_{t−1}   reset="soft"
        v_t  = (decay · v_{t−1} + I_t) · (1 − s_{t−1}) + v_reset · s_{t−1}
                reset="hard"

    The neurons of other libraries, whose v_reset is 0:

        snnTorch's Leaky(beta=β)          LIF(decay=β, reset_delay=True)
        ... with reset_mechanism="zero"
                LIF(decay=β, reset="hard"), whatever reset_delay is there
        snnTorch's Synaptic(α, β)   CuBaLIF(decay=β, synaptic_decay=α, reset_delay=True)
        SpikingJelly's LIFNode(tau=τ)
                LIF(decay=1 − 1/τ, decay_input=True, reset="hard")
        ... with v_reset=None             LIF(decay=1 − 1/τ, decay_input=True)
        ... with decay_input=False        without decay_input

    snnTorch's neurons spike only above their threshold, those here and in SpikingJelly
    at the threshold, too. This matters where membranes equal it exactly: for currents
    that are multiples of a number, such as those of integer weights, of attention or of
    pooled spikes.

    `decay`, `threshold`, `v_reset` and `initial_membrane` are numbers, or have a value
    for each channel or neuron: an array, or a Keras initializer. An array of one axis
    has a value for each channel; others broadcast to a sample of the input. An
    initializer draws one for each channel, with `axis=None` for each neuron. These
    values are weights. What is learned is stored as a weight of any value: the logit of
    the decay, `decay_logit`, and the logarithm of the threshold, `log_threshold`.
    `layer.decay` is the present value, and `layer.set_decay(value)` sets it where it is
    learned, or was given as an array or initializer; so for the others.

    In a `SpikingModel` the neurons start with the membrane v⁺_0 = `initial_membrane`,
    and run over all time steps. Outside a `SpikingModel`, the layer advances them by
    one step; use `LIFCell` to start from another state.

    Example:

    >>> lif = LIF(decay=0.5, threshold=1.0, surrogate="atan")
    >>> print(ops.convert_to_numpy(lif(np.array([[0.8, 1.5]], "float32"))))
    [[0. 1.]]
    >>> lif = LIF(decay=[0.5, 0.9], learn_decay=True)
    >>> spikes = lif(np.array([[0.8, 1.5]], "float32"))
    >>> lif.set_decay([0.5, 0.8])
    >>> print(lif.decay.round(6), [weight.name for weight in lif.trainable_weights])
    [0.5 0.8] ['decay_logit']

    Args:
        decay: Float in [0, 1), the fraction of the membrane that remains after one
            step; for a time constant of τ steps it is `1 − 1/τ`. Defaults to `0.2`.
        threshold: Float > 0, the membrane value at which a neuron spikes. Defaults to
            `1.0`.
        decay_input: Boolean, whether the input is scaled by 1 − `decay`, as by default
            in SpikingJelly: the membrane for a constant input then approaches that
            input. Defaults to `False`.
        axis: Integer, the channel axis, 1 for `channels_first` data, of arrays of one
            axis and of initializers; or `None`: an initializer then draws a value for
            each neuron. Defaults to `-1`.
        reset: `"soft"` subtracts the threshold from the membrane, `"hard"` sets it to
            `v_reset`. Defaults to `"soft"`.
        v_reset: Float < `threshold`, the membrane after a hard reset; must be 0 with a
            soft reset. Defaults to `0.0`.
        detach_reset: Boolean, whether the backward pass ignores the dependence of the
            reset on the spike. Defaults to `True`.
        reset_delay: Boolean, whether a spike resets the membrane in the next step, as
            by default in snnTorch, instead of at once. A delayed hard reset also
            replaces the input of that step. Defaults to `False`.
        surrogate: Name, `Surrogate` or its config, see `keras_ratesnn.surrogates`.
            Defaults to `"sigmoid"`.
        learn_decay: Boolean, whether the layer learns its decay, starting at `decay`,
            which is then above 0: one for all its neurons if it is a number. Defaults
            to `False`.
        learn_threshold: Boolean, whether the layer learns its threshold, starting at
            `threshold`: one for all its neurons if it is a number. Defaults to `False`.
        initial_membrane: Float < `threshold`, the membrane v⁺_0 before the first step.
            In a network that was converted from an ordinary one, `threshold / 2` rounds
            firing rates instead of truncating them (Bu et al., AAAI 2022). Defaults to
            `0.0`.
        threshold_stabilizer: Boolean, whether in training the threshold of each step
            follows the mean and standard deviation of all membranes of the layer, so
            that a similar fraction of neurons spikes at every step (OTS of Zhu et al.,
            ICLR 2024). In inference the threshold is the running mean. The authors
            train with `gradient="sltt"`; `"rate"` is not supported. Defaults to
            `False`.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer` of a Keras layer.
            In rate training the regularizer sees the firing rate, in BPTT the spikes of
            all steps.

    Input shape:
        Any, `(batch, ...)`: the input current.

    Output shape:
        Same as the input shape: spikes, exactly 0 or 1.

    Raises:
        ValueError: If `decay` is outside [0, 1), `threshold` is not > 0, `v_reset` is
            not 0 with a soft reset, `v_reset` or `initial_membrane` is not below the
            threshold, a name is unknown, or `threshold_stabilizer` is combined with
            `learn_threshold` or `reset_delay`.
        TypeError: If an argument has the wrong type, or a name from another library.

    Source: Yu et al., NeurIPS 2024, equation 1.
    """

    in_config = ("threshold_stabilizer",)

    @arguments_of(LIFCell)
    def __init__(
        self, cell: LIFCell, *, threshold_stabilizer: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(cell, **kwargs)
        self.threshold_stabilizer = checks.boolean(
            "threshold_stabilizer", threshold_stabilizer
        )
        if threshold_stabilizer and cell.reset_delay:
            raise ValueError(
                "`threshold_stabilizer=True` changes the threshold from step to step, "
                "and a delayed reset needs that of the previous step. Received: "
                "reset_delay=True, too. Leave one of the two out."
            )
        if threshold_stabilizer and cell.learn_threshold:
            raise ValueError(
                "`threshold_stabilizer=True` sets the thresholds from the membranes. "
                "Received: learn_threshold=True, too. Leave one of the two out."
            )
        if threshold_stabilizer and not isinstance(cell.threshold, float):
            raise ValueError(
                "`threshold_stabilizer=True` sets one threshold for all neurons. "
                "Received: a threshold for each channel or neuron in layer "
                f"{self.name!r}. Pass a number as `threshold`."
            )
        self.stabilizer = (
            ThresholdStabilizer(cell.threshold, name="stabilizer")
            if threshold_stabilizer
            else None
        )

    @property
    def couples_neurons(self) -> bool:
        return self.threshold_stabilizer

    def build(self, input_shape: Shape) -> None:
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

    def cell_in_time(self, training: bool) -> Any:
        if self.stabilizer is None:
            return self.cell
        return StabilizedCell(self.cell, self.stabilizer, training and self.trainable)


@registry.register
class IF(NeuronWithArguments):
    """Integrate-and-fire neurons: like `LIF` without a leak, `decay = 1`.

    Example:

    >>> neurons = IF(threshold=1.0)
    >>> print(ops.convert_to_numpy(neurons(np.array([[0.8, 1.5]], "float32"))))
    [[0. 1.]]

    Args: as in `LIF`.
    """

    @arguments_of(IFCell)
    def __init__(self, cell: IFCell, **kwargs: Any) -> None:
        super().__init__(cell, **kwargs)


@registry.register
class ParametricLIF(NeuronWithArguments):
    """Leaky integrate-and-fire neurons that learn their decay, as `LIF` with
    `learn_decay=True`.

    With the rate gradient the decay gets the exact local derivative of the firing rate,
    ∂r/∂λ, accumulated forward in time together with the rate and its eligibility. With
    `learn_threshold=True` the threshold does, too.

    Example:

    >>> neurons = ParametricLIF(decay=0.5, per_channel=True)
    >>> spikes = neurons(np.array([[0.8, 1.5]], "float32"))
    >>> print(neurons.decay)
    [0.5 0.5]

    Args: as in `LIF`, but
        decay: Float in (0, 1), the initial decay, or an array or initializer. Defaults
            to `0.5`, a time constant of 2 steps.
        per_channel: Boolean, whether each channel learns its own decay, if it is a
            number; otherwise all neurons share one. Defaults to `False`.
        decay_bits: Integer k: the decay that is used is rounded to one of 1/2^k, 2/2^k,
            … 1 − 1/2^k, whose gradient goes straight through, as in
            `keras_ratesnn.deploy.quantize_aware`. Defaults to `None`, not rounded.

    Source: Fang et al., "Incorporating Learnable Membrane Time Constant to Enhance
    Learning of Spiking Neural Networks", ICCV 2021.
    """

    @arguments_of(ParametricLIFCell)
    def __init__(self, cell: ParametricLIFCell, **kwargs: Any) -> None:
        super().__init__(cell, **kwargs)


def _warn_of_one_time_step(layer: keras.layers.Layer) -> None:
    """Warns only once per process, because a network may have many such layers."""
    global _warned_of_one_time_step
    if not _warned_of_one_time_step:
        _warned_of_one_time_step = True
        warnings.warn(
            f"{type(layer).__name__} {layer.name!r} is called outside of a "
            "SpikingModel, for one time step: its neurons start at rest and emit the "
            "spikes of one step. To run the network over time: "
            "keras_ratesnn.SpikingModel(network, timesteps=4); compile and fit that "
            "model.",
            stacklevel=3,
        )


_warned_of_one_time_step = False
