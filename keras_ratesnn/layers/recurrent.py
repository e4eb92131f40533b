"""Recurrent neurons: the spikes of the previous step come back through a layer."""

from typing import Any

import keras
from keras import ops

from keras_ratesnn._core import checks, parts, registry, time_axis
from keras_ratesnn._core.annotations import Config, Shape, Structure, Tensor
from keras_ratesnn.layer_kinds import kind_of
from keras_ratesnn.layers.neuron_cell import NeuronCell, WrappingCell
from keras_ratesnn.layers.neurons import Neuron


def with_feedback(
    inputs: Tensor, spikes: Tensor, synapse: keras.layers.Layer
) -> Tensor:
    """The input current, and what the spikes of the previous step add to it."""
    return time_axis.cast(inputs, spikes.dtype) + time_axis.cast(
        synapse(spikes), spikes.dtype
    )


@registry.register
class RecurrentCell(WrappingCell):
    """One time step of recurrent neurons: those of a cell, to whose input a synapse
    adds the spikes of the previous step.

    Args:
        cell: A `NeuronCell`.
        synapse: A layer, see `Recurrent`.
        **kwargs: `name`, `dtype`, `trainable` of a Keras layer.

    Call arguments:
        inputs: Tensor `(batch, ...)`, the input of this step.
        state: The state returned by the previous step; `None` for neurons before their
            first step.

    Returns:
        `(spikes, state)`: spikes of the shape of `inputs`; a dict of `"cell"`, the
        state of the cell, and `"spikes"`.
    """

    levels = 1
    fixed_arguments = ("cell", "synapse")

    def __init__(
        self,
        cell: NeuronCell | Config,
        synapse: keras.layers.Layer | Config,
        **kwargs: Any,
    ) -> None:
        super().__init__(cell, **kwargs)
        self.synapse: keras.layers.Layer = parts.deserialized(synapse)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        parts.build(self.synapse, input_shape)
        shape = tuple(self.synapse.compute_output_shape(input_shape))
        if shape[1:] != tuple(input_shape)[1:]:
            raise ValueError(
                "`synapse` must return currents of the shape of the neurons, "
                f"{tuple(input_shape)[1:]}. Received: layer {self.synapse.name!r} of "
                f"type {type(self.synapse).__name__}, which returns {shape[1:]}. Give "
                "it as many units or filters as there are channels of neurons."
            )

    @property
    def feedback(self) -> keras.layers.Layer:
        return self.synapse

    def initial_state(self, inputs: Tensor) -> Structure:
        return {
            "cell": self.cell.initial_state(inputs),
            "spikes": super().initial_state(inputs),
        }

    def step(
        self, inputs: Tensor, state: Structure
    ) -> tuple[Tensor, Tensor, Structure]:
        before = state["spikes"]
        current = with_feedback(inputs, before, self.synapse)
        membrane, spikes, after = self.cell.step(current, state["cell"])
        return membrane, spikes, {"cell": after, "spikes": spikes}

    def state_at_padding(self, state: Structure) -> Structure:
        return {"cell": state["cell"], "spikes": ops.zeros_like(state["spikes"])}

    def after_steps(self, state: Structure) -> None:
        self.cell.after_steps(state["cell"])


@registry.register
class Recurrent(Neuron):
    """Recurrent neurons: the spikes of the previous step come back to the neurons of a
    layer through another layer.

        I_t = x_t + synapse(s_{t−1})                    s_0 = 0
        s_t = the spikes of the neurons, given I_t

    With `"bptt"` and `Rate(windows=T)` the gradient is exact. `"sltt"` takes the spikes
    that come back as a constant, so the synapse learns, but no error travels through
    it. With fewer windows, also with `"rate"`, the mean of the spikes that come back in
    a window is one more input, and errors travel through the synapse once: an
    approximation, which docs/howto/neurons.md describes. `"ottt"` is not supported.

    The recurrent neurons of other libraries:

        snnTorch's RLeaky(beta=β, linear_features=n)
                Recurrent(LIF(decay=β, reset_delay=True), Dense(n))
        snnTorch's RSynaptic(α, β, linear_features=n)
                Recurrent(CuBaLIF(β, synaptic_decay=α, reset_delay=True), Dense(n))
            either with all_to_all=False, V=v
                    Scale(v) in the place of Dense(n), per_channel=True for a V of each
            either with reset_mechanism="zero"
                    the same neurons with reset="hard", and reset_delay=True as well
        SpikingJelly's LinearRecurrentContainer(node, n, n)
                Dense(n), then Recurrent(neurons, Dense(n, use_bias=False)), with the
                rows 0 to n − 1 of its kernel in the first layer, and the others in the
                second
        its ElementWiseRecurrentContainer(node, lambda x, y: x + y)
                Recurrent(neurons, Scale(1.0, trainable=False))

    Example:

    >>> inputs = keras.Input((4,))
    >>> x = Recurrent(keras_ratesnn.layers.LIF(), keras.layers.Dense(8))(
    ...     keras.layers.Dense(8)(inputs)
    ... )
    >>> model = keras_ratesnn.SpikingModel(
    ...     keras.Model(inputs, keras.layers.Dense(2)(x)), timesteps=4, gradient="bptt"
    ... )
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(np.ones((8, 4, 4)), np.ones((8, 2)), verbose=0)

    Args:
        neuron: A neuron layer, such as `LIF()`, or a cell.
        synapse: A layer that is affine in its input and keeps its shape, for example
            `keras.layers.Dense`, `keras.layers.Conv2D(..., padding="same")` or, from
            each neuron to itself alone, `Scale`.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer` of a Keras layer.

    Input shape:
        `(batch, ...)`, that of the neurons.

    Output shape:
        Same as the input shape: spikes.

    Raises:
        TypeError: If `neuron` is neither a neuron layer nor a cell, or `synapse` not a
            layer.
        ValueError: If the synapse is not affine or changes the shape, or the neurons
            are parallel, recurrent or stabilised.
    """

    in_config = "neuron", "synapse"

    def __init__(
        self,
        neuron: Neuron | NeuronCell | Config,
        synapse: keras.layers.Layer | Config,
        **kwargs: Any,
    ) -> None:
        cell = _cell_of(parts.deserialized(neuron))
        synapse = parts.deserialized(synapse)
        _check_synapse(synapse)
        cell = RecurrentCell(cell, synapse, dtype=kwargs.get("dtype"), name="cell")
        super().__init__(cell, **kwargs)

    @property
    def neuron(self) -> NeuronCell:
        """The cell of the neurons."""
        return self.cell.cell

    @property
    def synapse(self) -> keras.layers.Layer:
        return self.cell.synapse


def _cell_of(neuron):
    """The cell of a neuron layer or the cell that was given; raises an error if it
    cannot be recurrent."""
    cell = neuron.cell if isinstance(neuron, Neuron) else neuron
    if not isinstance(cell, NeuronCell):
        raise checks.wrong_type(
            "neuron",
            "a neuron layer, for example keras_ratesnn.layers.LIF(), or a cell",
            neuron,
        )
    couples = isinstance(neuron, Neuron) and neuron.couples_neurons
    if couples or cell.in_parallel or cell.feedback is not None:
        raise ValueError(
            "`neuron` must have a state of its own that depends on past inputs alone, "
            f"for example keras_ratesnn.layers.LIF(). Received: {neuron.name!r} of "
            f"type {type(neuron).__name__}, whose neurons are parallel, already "
            "recurrent, or have a threshold_stabilizer."
        )
    return cell


def _check_synapse(synapse):
    checks.instance(
        "synapse",
        synapse,
        keras.layers.Layer,
        advice="For example keras.layers.Dense(64).",
    )
    kind = kind_of(synapse)
    if not kind.affine or kind.normalization is not None:
        raise ValueError(
            "`synapse` must be a layer that is affine in its input, such as Dense, or "
            f"a convolution, without an activation. Received: {synapse.name!r} of type "
            f"{type(synapse).__name__}. Mark a layer of your own with "
            "keras_ratesnn.layers.affine."
        )
