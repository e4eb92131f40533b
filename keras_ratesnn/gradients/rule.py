"""Rule: what a walk does with each operation."""

import contextlib
from collections.abc import Callable
from typing import Any

from keras_ratesnn import layer_kinds
from keras_ratesnn._core import keras_internals, time_axis
from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn._graph import Call
from keras_ratesnn.gradients.step_modes import StepMode


class Rule:
    """Defines what a walk does with each operation: it is called with a `Call` and returns its output signals.

    Args:
        step_mode: The `StepMode` of the run, see `step_mode_of`.
        training: Boolean, whether layers behave as in training.
    """

    def __init__(self, step_mode: StepMode, training: bool) -> None:
        self.step_mode = step_mode
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
            self.add_loss(call, time_axis.scaled(loss, share), t)
        return outputs

    def outputs_and_losses(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Structure, list[Tensor]]:
        """The outputs of the operation of a call, see `apply`, and the losses that it adds, in float32 or wider."""
        with self.step_mode.layout if call.kind.any_layout else contextlib.nullcontext():
            outputs, losses = keras_internals.call_aside(call.operation, args, kwargs)
        return outputs, [time_axis.widen(loss) for loss in losses]

    def guarded(self, call: Call, keep: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """A function for the inputs and the outputs of an operation that may be, or have a derivative that is, NaN for zeros.

        Args:
            call: `Call`.
            keep: Function that leaves zeros, without gradient, in place of padding.

        Returns:
            `keep`, with Keras masks, if there is padding and the operation could need it. Otherwise, the identity.
        """
        harmless = call.kind.affine and not layer_kinds.may_use_masks(call.operation)
        if self.step_mode.windows.mask is None or harmless:
            return lambda tensor: tensor
        return lambda tensor: keras_internals.put_mask(keep(tensor), keras_internals.mask_of(tensor))

    def add_loss(self, call: Call, loss: Tensor, t: int | Tensor | None = None) -> None:
        """Called with each loss that a call's operation adds, multiplied by its share in all steps. `t`: see `apply`."""
        self.step_mode.store_loss(call, loss)

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
