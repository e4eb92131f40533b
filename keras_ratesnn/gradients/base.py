"""The interface that training methods implement.

A `GradientMethod` defines how a network is trained through time. Each call of the model creates a `Run`. The method returns the
outputs of the network, using one or more walks through its graph. In a walk a *rule* is called with every operation (a `Call`)
and returns its output `Signal`s. `ForwardRule` is the plain spiking network; a method overrides what it needs.

A rule sees time through an *order* (`keras_ratesnn.gradients.orders`): all steps at once, or one after the other. It uses the
facts of an operation (`call.kind`, see `keras_ratesnn.layer_kinds`), never its class.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Self

import keras

from keras_ratesnn import layer_kinds
from keras_ratesnn._core import keras_internals, time_axis
from keras_ratesnn._core.annotations import Config, Structure, Tensor
from keras_ratesnn._graph import Call
from keras_ratesnn.gradients.orders import AllSteps, OneStep, Order

ORDERS = {"multi": AllSteps, "single": OneStep}
"""The order for each step mode."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One call of a `SpikingModel`.

    Args:
        walk: Function `(signals, rule) -> signals`: runs the network's graph, from its inputs to its outputs.
        inputs: List of pairs `(tensor, has_time)` in the order of the network's inputs: `(batch, T, ...)` with
            `has_time=True`, or `(batch, ...)`.
        timesteps: Integer T.
        step_mode: `"multi"` or `"single"`.
        training: Boolean, whether layers behave as in training.
        with_gradient: Boolean, whether the outputs may be differentiated.
        return_sequences: Boolean, whether the output is that of every step instead of the time mean.
        network: The Functional model that `walk` runs; it gives access to the variables.
        draws: `keras.random.SeedGenerator` of the model if the method `draws`, else `None`.
        after_means: Function like `walk`, for the part of the network that follows `layers.TimeMean`: it takes a signal for
            each output of `walk`. `None` if there is no such part.
    """

    walk: Callable
    inputs: list
    timesteps: int
    step_mode: str
    training: bool
    with_gradient: bool
    return_sequences: bool
    network: keras.Model
    draws: keras.random.SeedGenerator | None = None
    after_means: Callable | None = None

    def new_order(self, windows: Sequence[int] | None = None) -> Order:
        """A new order, in its initial state, for rules of this run. See `orders.Order` for `windows`."""
        return ORDERS[self.step_mode](self.timesteps, windows)


class GradientMethod:
    """Base class of training methods, including custom ones.

    A subclass implements `call`, and `get_config` if its constructor has arguments. Register it with
    `keras.saving.register_keras_serializable` so that models that use it can be saved.

    Example, BPTT with half its gradient:

    >>> class HalfGradient(keras_ratesnn.gradients.GradientMethod):
    ...     def call(self, run):
    ...         outputs = keras_ratesnn.gradients.BPTT().call(run)
    ...         return keras_ratesnn.gradients.graft(ops.stop_gradient(outputs), outputs, 0.5)
    >>> inputs = keras.Input((4,))
    >>> network = keras.Model(inputs, keras.layers.Dense(2)(keras_ratesnn.layers.LIF()(inputs)))
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4, gradient=HalfGradient())
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0)
    """

    runs_means = False
    """Whether `call` also runs what follows `layers.TimeMean`, as a network of one step; otherwise it runs as in inference."""

    @property
    def draws(self) -> bool:
        """Whether `call` draws random numbers. If so, the model provides a generator, `run.draws`."""
        return False

    def call(self, run: Run) -> Structure:
        """The outputs of a call of the model.

        Args:
            run: `Run`.

        Returns:
            Tensors in the structure of the network's outputs: time means `(batch, ...)`, or all steps
            `(batch, T, ...)` if `run.return_sequences`.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `call(run)`.")

    def check(self, neurons: Sequence[keras.layers.Layer]) -> None:
        """Raises ValueError if the method cannot train one of these neuron layers. Called before anything runs.

        Args:
            neurons: List of `keras_ratesnn.layers.Neuron`.
        """

    def check_timesteps(self, timesteps: int) -> None:
        """Raises ValueError if the method cannot train with this number of time steps. Called before training begins."""

    def get_config(self) -> Config:
        return {}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**config)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


class Rule:
    """Defines what a walk does with each operation: it is called with a `Call` and returns its output signals.

    Args:
        order: The order of the run, see `Run.new_order`.
        training: Boolean, whether layers behave as in training.
    """

    def __init__(self, order: Order, training: bool) -> None:
        self.order = order
        self.training = training

    def __call__(self, call: Call) -> Structure:
        raise NotImplementedError(f"{type(self).__name__} must implement `__call__(call)`.")

    def output(self, tensor: Tensor) -> Tensor:
        """Called with each output of the network: of one step in single-step mode, of all steps in multi-step mode."""
        return tensor

    def apply(
        self,
        call: Call,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        share: float = 1.0,
        t: int | Tensor | None = None,
    ) -> Structure:
        """Applies the operation of a call to tensors, without its activity regularisation.

        Args:
            call: `Call`.
            args: Tuple, the arguments with tensors instead of signals.
            kwargs: Dict, likewise.
            share: Float, the fraction of all steps that is computed here; losses added by the operation are multiplied by it.
                Defaults to `1.0`.
            t: Integer, or integer scalar tensor: the time step that is computed here. Defaults to `None`: all steps, or rates.
        """
        outputs, losses = self.outputs_and_losses(call, args, kwargs)
        for loss in losses:
            self.add_loss(call, loss * share, t)
        return outputs

    def outputs_and_losses(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Structure, list[Tensor]]:
        """The outputs of the operation of a call, see `apply`, and the losses that it adds, in float32 or wider."""
        with self.order.layout if call.kind.any_layout else contextlib.nullcontext():
            outputs, losses = keras_internals.call_aside(call.operation, args, kwargs)
        return outputs, [time_axis.widen(loss) for loss in losses]

    def finish(self) -> None:
        """Called after the walks: passes the collected losses to their layers."""
        self.order.end()

    def add_loss(self, call: Call, loss: Tensor, t: int | Tensor | None = None) -> None:
        """Called with each loss that a call's operation adds, multiplied by its share in all steps. `t`: see `apply`."""
        self.order.add_loss(call, loss)

    def is_static(self, call: Call) -> bool:
        """Whether the output of the call is the same at every step."""
        return all(signal.static for signal in call.signals) and not self.takes_time(call)

    def in_training(self, call: Call) -> bool:
        """Whether the call's layer behaves as in training."""
        return call.kwargs.get("training", self.training)

    def normalizes(self, call: Call) -> bool:
        """Whether the call normalises with batch statistics: in training, unless the layer is frozen."""
        return self.in_training(call) and call.kind.normalization is not None and call.operation.trainable

    def masks(self, call: Call) -> bool:
        """Whether the call multiplies its input by a random mask."""
        return self.in_training(call) and call.kind.masks

    def draws(self, call: Call) -> bool:
        """Whether the call may draw random numbers, which are the same for every step of a sample and for its rate."""
        return layer_kinds.is_random(call.operation, self.in_training(call))

    def takes_time(self, call: Call) -> bool:
        """Whether the call receives the time step, so that its output differs from step to step."""
        return layer_kinds.wants_time_step(type(call.operation))  # type: ignore[arg-type]  # A class can be hashed.
