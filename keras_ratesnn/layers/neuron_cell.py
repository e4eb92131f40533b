"""The base class of neuron cells, including custom ones."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_ratesnn import surrogates
from keras_ratesnn._core import parts, time_axis
from keras_ratesnn._core.annotations import Config, Shape, Structure, Tensor
from keras_ratesnn._core.backend import engine
from keras_ratesnn._core.moved_names import RefusesOldHooks
from keras_ratesnn.layer_kinds import CELL, LayerKind
from keras_ratesnn.layers import dynamics, parameters
from keras_ratesnn.surrogates import Surrogate

THRESHOLD_ADVICE = "A neuron at rest would spike without input."


class Targets(NamedTuple):
    """Other targets that run the neurons of a cell, by the parameters that `LIF`,
    `CuBaLIF` and `ILIF` have.

    Args:
        nir: String, the type of their node in NIR; `None` if there is none. Defaults to
            `None`.
        integers: Boolean, whether networks of integers have them. Defaults to `False`.
    """

    nir: str | None = None
    integers: bool = False


class NeuronCell(RefusesOldHooks, parameters.WeightsInFloat32):
    """One time step of a population of spiking neurons: the base class of all cells,
    including custom ones.

    Call a cell as `spikes, state = cell(inputs, state)`. To use it in a network, wrap
    it in the layer `keras_ratesnn.layers.Neuron`; the training method then runs it over
    time.

    A subclass implements `step`, which computes spikes with `self.fire(membrane)`. If
    the state is more than a membrane, it also implements `initial_state`. Weights are
    created as in any Keras layer. With `gradient="rate"` a step must act on each neuron
    independently, and each weight must broadcast to the membrane;
    `keras_ratesnn.testing.check_cell` checks this.

    Example, a neuron whose membrane saturates before it integrates:

    >>> @keras.saving.register_keras_serializable(package="my_neurons")
    ... class SaturatingCell(keras_ratesnn.layers.NeuronCell):
    ...     def step(self, inputs, state):
    ...         membrane = 0.5 * ops.tanh(state) + ops.cast(inputs, state.dtype)
    ...         spikes = self.fire(membrane)
    ...         return (
    ...             membrane,
    ...             spikes,
    ...             membrane - self.threshold * ops.stop_gradient(spikes),
    ...         )
    >>> inputs = keras.Input((4,))
    >>> outputs = keras.layers.Dense(2)(
    ...     keras_ratesnn.layers.Neuron(SaturatingCell())(keras.layers.Dense(8)(inputs))
    ... )
    >>> model = keras_ratesnn.SpikingModel(
    ...     keras.Model(inputs, outputs), timesteps=4, gradient="rate"
    ... )
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0)

    Args:
        threshold: Float > 0, the membrane value at which a neuron spikes. Defaults to
            `1.0`.
        surrogate: Name, `Surrogate` or its config: the function that replaces the
            derivative of the spike function. Defaults to `"sigmoid"`.
        **kwargs: `name`, `dtype`, `trainable` of a Keras layer.

    Raises:
        ValueError: If `threshold` is not > 0 or the surrogate's name is unknown.
        TypeError: If an argument has the wrong type.
    """

    layer_kind = LayerKind(role=CELL)
    # Its arguments.
    threshold: Any = parameters.Parameter(
        only_number=True, above=0, advice=THRESHOLD_ADVICE
    )
    fixed_arguments: tuple[str, ...] = ("threshold", "surrogate")
    """Names of the constructor's arguments that are attributes and, as they are, part
    of the config. They are fixed once the cell is built, since their values may be part
    of compiled or traced code."""

    # Facts, which backends, methods and other programs ask for.
    levels = 1
    """The most spikes of a neuron in a step: 1 if spikes are 0 or 1, more if a step
    emits integers."""
    states_levels = False
    """Whether the class that has `step` or `fire` states `levels`. Only such spikes
    are kept as bits or bytes: others may be fractions. Not to be set."""
    fuses = True
    """Whether a step may be compiled into one pass over memory, on backends where the
    library does that."""
    derivative_needs_inputs = False
    """Whether `step_derivative` also takes the `inputs` of the step, as a keyword."""
    derivative_weights: tuple[str, ...] = ()
    """Names of the attributes that are the weights which `step_derivative` knows. They
    do not change the state at rest."""
    in_parallel = False
    """Whether `over_time` computes the membranes of all steps, which are affine in the
    inputs of all steps. At steps that are padding inputs are then zero; other neurons
    wait."""
    neurons_share_weights = False
    """Whether all neurons have the same weights, of cells with `in_parallel`. It is not
    inherited."""
    exact_timesteps = False
    """Whether it cannot run for fewer time steps than `most_timesteps` either."""
    couples_samples = False
    """Whether a sample depends on those before it in the batch. There is no gradient
    then."""
    targets = Targets()
    """Other targets that run such neurons. Not inherited: a subclass may compute
    something else."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.targets = vars(cls).get("targets", Targets())
        if not {"levels", "step", "fire"}.isdisjoint(vars(cls)):
            cls.states_levels = "levels" in vars(cls)

    def __init__(
        self,
        threshold: float = 1.0,
        *,
        surrogate: str | Surrogate | Config = "sigmoid",
        **kwargs: Any,
    ) -> None:
        # The state stays in float32 in half precision: Keras must not cast the
        # arguments.
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True
        self.threshold = threshold
        self.surrogate = surrogates.get(surrogate)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.fixed_arguments and getattr(self, "built", False):
            raise parameters.fixed(name, value, self)
        super().__setattr__(name, value)

    @property
    def variables(self) -> list[keras.Variable]:
        variables = super().variables
        # Cells of integer spikes have none.
        surrogate = getattr(self, "surrogate", None)
        if surrogate is not None:
            # Variables of a surrogate are no weights, so that no saved file has them.
            variables += surrogate.variables
        return variables

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if any(
            isinstance(value, keras.KerasTensor) for value in (*args, *kwargs.values())
        ):
            kind = type(self).__name__
            # Not a TypeError: Sequential would replace its message.
            raise ValueError(
                "A cell computes one time step and cannot be a layer of a network. "
                f"Received: {kind} {self.name!r} in a model. Use a neuron layer: "
                "keras_ratesnn.layers.LIF() or another one, or "
                f"keras_ratesnn.layers.Neuron({kind}())."
            )
        return super().__call__(*args, **kwargs)

    def effective(self, name: str) -> float | Tensor:
        """A parameter as the step uses it: a float, or a tensor if it is learned, or
        not the same for all neurons.

        Args:
            name: String, the name of an argument, for example `"threshold"`.
        """
        parameter = getattr(type(self), name, None)
        if isinstance(parameter, parameters.Parameter):
            return parameter.tensor(self)
        return getattr(self, name)

    def initial_state(self, inputs: Tensor) -> Structure:
        """The state at rest, before the first step: a membrane of zeros, like `inputs`,
        in float32 or wider."""
        return ops.zeros_like(inputs, dtype=time_axis.accumulation_dtype(inputs.dtype))

    def step(
        self, inputs: Tensor, state: Structure
    ) -> tuple[Tensor, Tensor, Structure]:
        """One time step.

        Args:
            inputs: Tensor, the input current I_t.
            state: The state returned by the previous step or by `initial_state`.

        Returns:
            `(membrane, spikes, state)`: the membrane v_t before the reset, the spikes
            s_t and the state after the step, a tensor or a structure of tensors.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement `step(inputs, state)` and return "
            "`(membrane, spikes, state)`."
        )

    # Time: how many steps there may be, and cells that compute all of them at once.

    @property
    def sees_all_steps(self) -> bool:
        """Whether there is no `step`, because a spike depends on inputs of later steps.
        Defaults to `False`."""
        return False

    @property
    def most_timesteps(self) -> int | None:
        """The largest number of time steps it can run for, if it has weights for each
        step. Defaults to `None`: any number."""
        return None

    def over_time(self, inputs: Tensor) -> Tensor:
        """The membranes of all steps, `(batch, T, ...)`, given their inputs, of cells
        with `in_parallel`. There is no reset."""
        raise NotImplementedError(
            f"{type(self).__name__} does not compute all time steps at once."
        )

    def over_time_derivatives(self, inputs: Tensor) -> list[Any]:
        """The derivatives of `over_time` with respect to `weight_parts`, of cells with
        `in_parallel` and a `step_derivative`.

        Optional: without them the rate gradient takes one step after the other. As
        `step_derivative`, they are not used if a subclass overrides the computation.

        Returns:
            List of tensors like the membranes, or numbers.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no hand-written derivatives of all time steps."
        )

    def reaching_inputs(self, timesteps: int) -> np.ndarray:
        """Booleans `(T, T)`, of cells with `in_parallel`: whether the membrane of a
        step (the row) depends on the inputs of a step (the column).

        Defaults to the inputs of all steps, or of all but later ones for cells with a
        `step`.
        """
        everywhere = np.ones((timesteps, timesteps), bool)
        return everywhere if self.sees_all_steps else np.tril(everywhere)

    # Derivatives that are written by hand.

    def weight_parts(self) -> list[tuple[Any, Tensor]]:
        """The parts of the trainable weights that broadcast to the membrane: pairs of
        the `weight` that stands for a part in `step_derivative`, and the part's value.
        Defaults to each weight as a whole."""
        return [(variable, variable) for variable in self.trainable_variables]

    def step_derivative(
        self,
        state: Structure,
        membrane: Tensor,
        spikes: Tensor,
        surrogate_derivative: Tensor,
    ) -> Callable[..., tuple[Any, Any]]:
        """An optional hand-written derivative of `step` for the rate gradient. The
        default is forward-mode differentiation.

        It belongs to the `step` and `fire` of the same class or a base class. If a
        subclass overrides these, it is not used, nor if `has_step_derivative` is
        `False`, or the cell learns a weight that `derivative_weights` does not name.

        Args:
            state: The state before the step.
            membrane: Tensor v_t, before the reset.
            spikes: Tensor s_t.
            surrogate_derivative: Tensor h(v_t − θ), which replaces ∂s_t/∂v_t.

        Returns:
            Function `(input_tangent, state_tangent, weight) -> (distance_tangent,
            state_tangent)`: the tangents of v_t − θ and of the state after the step,
            for the given tangents of the input and of the state before the step, and
            the tangent 1 of the trainable weight `weight` (if not `None`). Tangents are
            numbers or tensors.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no hand-written derivative."
        )

    @property
    def has_step_derivative(self) -> bool:
        """Whether `step_derivative` holds for the arguments of this cell. Defaults to
        `True`."""
        return True

    def trace_decay(self) -> float | Tensor | None:
        """The decay λ of the spike trace in the online method OTTT, which equals the
        decay of a leaky membrane.

        Returns:
            A number or tensor, or `None` (the default) if the neuron has no single
            decay.
        """
        return None

    # Neurons of another cell, or that depend on each other.

    def independent_cell(self) -> "NeuronCell":
        """The cell whose step acts on each neuron independently: this one, or the one
        that a recurrent cell wraps."""
        return self

    @property
    def feedback(self) -> keras.layers.Layer | None:
        """The layer through which the spikes of the previous step come back. Defaults
        to `None`: there is none."""
        return None

    def state_at_padding(self, state: Structure) -> Structure:
        """The state after a step that is padding, given that before it. Defaults to the
        same: neurons wait."""
        return state

    def after_steps(self, state: Structure) -> None:
        """Called once after the last step of a batch, with the final state. Does
        nothing by default."""

    # Spikes.

    @property
    def spike_size(self) -> float:
        """The value of one spike. Defaults to `1.0`; a cell whose spikes are normalised
        has another."""
        return 1.0

    def effective_threshold(self) -> float | Tensor:
        """θ as the step uses it: a float, or a tensor if it is learned, or not the same
        for all neurons."""
        return self.effective("threshold")

    def surrogate_derivative(self, membrane: Tensor) -> Tensor:
        """h(v_t − θ), which replaces ∂s_t/∂v_t."""
        return self.surrogate.derivative(membrane - self.effective_threshold())

    def fire(self, membrane: Tensor, threshold: float | Tensor | None = None) -> Tensor:
        """Spikes H(v_t − θ), exactly 0 or 1, with the surrogate's derivative.

        Args:
            membrane: Tensor v_t.
            threshold: Tensor like the membrane, or a number: θ, if it changes from step
                to step. The spikes are also differentiated with respect to it. Defaults
                to `None`: the cell's `effective_threshold()`.
        """
        if threshold is None:
            threshold = self.effective_threshold()
        spikes = dynamics.fire(membrane, threshold)
        if not engine.grad_enabled():
            return spikes
        distance = membrane - threshold
        return engine.graft(
            spikes, distance, ops.stop_gradient(self.surrogate.derivative(distance))
        )

    def call(self, inputs: Tensor, state: Structure = None) -> tuple[Tensor, Structure]:
        if state is None:
            state = self.initial_state(inputs)
        _, spikes, state = self.step(inputs, state)
        return ops.cast(spikes, self.compute_dtype), state

    def get_config(self) -> Config:
        arguments = parameters.arguments(self, self.fixed_arguments)
        return {**super().get_config(), **arguments}


class WrappingCell(NeuronCell):
    """Base class of cells whose neurons are those of another cell.

    Args:
        cell: A `NeuronCell`, or its config.
        **kwargs: As in `NeuronCell`.
    """

    fixed_arguments: tuple[str, ...] = ("cell",)
    fuses = False
    threshold = parameters.Parameter()

    def __init__(self, cell: NeuronCell | Config, **kwargs: Any) -> None:
        inner = parts.deserialized(cell)
        # Cells whose derivative is no surrogate have none.
        super().__init__(
            inner.threshold, surrogate=getattr(inner, "surrogate", "sigmoid"), **kwargs
        )
        self.cell: NeuronCell = inner
        self.levels = inner.levels
        self.states_levels = type(self).states_levels and inner.states_levels

    def build(self, input_shape: Shape) -> None:
        parts.build(self.cell, input_shape)

    def independent_cell(self) -> NeuronCell:
        return self.cell

    @property
    def spike_size(self) -> float:
        return self.cell.spike_size
