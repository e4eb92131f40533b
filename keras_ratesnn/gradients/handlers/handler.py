"""The handler of one call: what its operation does at a step, at all steps, once, and
on rates."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_ratesnn._core import keras_internals, time_axis, tree
from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn._core.backend import engine
from keras_ratesnn._core.moved_names import RefusesOldHooks
from keras_ratesnn._graph import PlannedCall, Slot
from keras_ratesnn.gradients.time.windows import Means, Windows
from keras_ratesnn.layer_kinds import kind_of, may_use_masks, wants_time_step

HandlerState = Any
"""The state of a handler, between steps and for rates: `()`, or a NamedTuple of its
file. What is absent is `()`, for loops."""

Time = int | Tensor | None
"""A time step, from 0 on, as an integer or an integer scalar tensor; `None` for all
steps at once."""


@dataclasses.dataclass(frozen=True)
class Context:
    """The facts that all handlers of a run share.

    Args:
        windows: `Windows`: T, the mask in time, and the windows whose means are
            recorded.
        rows: The number of rows of all steps, batch · T.
        training: Boolean, whether layers behave as in training.
        all_at_once: Boolean, whether operations see all steps at once, as in multi-step
            mode.
        with_gradient: Boolean, whether what depends on time carries gradient. Defaults
            to `True`.
        detached: Boolean, whether it must not carry gradient, because something else
            provides it. Defaults to `False`.
        records: Boolean, whether rates are wanted after the last step. Defaults to
            `False`.
        last_step: Boolean, whether rates have the statistics of the last step instead
            of time means. Defaults to `False`.
        streams: Boolean, whether the run is a step of an endless one, or all substeps
            of such a step. Defaults to `False`.
        between: Function of what is carried from a step to the next, which returns what
            the next step finds. Defaults to `None`: the same.
        chosen: Boolean tensor `(T,)`: which steps carry gradient. Defaults to `None`,
            all steps.
        layout: Context for calls of layers that can keep the memory layout of their
            data. Defaults to that of the backend.
    """

    windows: Windows
    rows: int | Tensor
    training: bool
    all_at_once: bool
    with_gradient: bool = True
    detached: bool = False
    records: bool = False
    last_step: bool = False
    streams: bool = False
    between: Callable[[Structure], Structure] | None = None
    chosen: Tensor | None = None
    layout: Any = dataclasses.field(default_factory=engine.layout_kept)

    def checked(self, rows: Tensor) -> Tensor:
        """Checks that a tensor of all steps has a row for each sample and step, and
        returns it."""
        expected = self.rows if isinstance(self.rows, int) else "that number of"
        engine.check_equal(
            ops.shape(rows)[0] if len(rows.shape) else 1,
            self.rows,
            'A network run with step_mode="multi" must keep the batch as the first '
            "axis of all tensors that change with time: one row for each sample and "
            f"step. Received: a tensor of shape {tuple(rows.shape)}, which does not "
            f"have {expected} rows. Remove the operation that reshapes or reduces that "
            'axis, or set step_mode="single", in which the network sees the samples of '
            "one step.",
        )
        return rows

    @property
    def calls(self) -> int:
        """How often an operation is called in a run."""
        return 1 if self.all_at_once else self.windows.timesteps

    def step_of_rows(self, rows: int | Tensor) -> Tensor:
        """The time step of each row of all steps, `(rows,)`."""
        return ops.arange(rows, dtype="int32") % self.windows.timesteps

    def with_gradient_of_chosen(self, rows: Tensor, t: Time) -> Tensor:
        """Rows of a step, or of all steps for `None`; their gradient is that of the
        chosen steps."""
        if self.chosen is None:
            return rows
        if t is None:
            batch = ops.shape(rows)[0] // self.windows.timesteps
            chosen = ops.tile(self.chosen, (batch,))
        else:
            chosen = ops.take(self.chosen, t)
        return ops.where(time_axis.as_rows(chosen, rows), rows, ops.stop_gradient(rows))


class Handler(RefusesOldHooks):
    """One call of an operation.

    A handler whose `step` takes `t=None` for all steps as `batch * T` rows needs no
    `all_steps`.

    A handler of one's own implements `step`, and `start` if it keeps something from
    step to step; or `advance` of a `LoopedHandler`, or `emitted` of a `NeuronHandler`.
    It may override `all_steps`, `once`, `commit`, and in methods on rates `rates`.
    Other methods are for these to call, or differ for the library's own handlers alone.
    It stores nothing on itself.

    Args:
        call: `PlannedCall`: the operation, with the slots of its inputs and outputs.
        context: `Context`, what all handlers of a run share.

    Attributes:
        windows: The `Windows` of the context.
        means: Their `Means`.
        static: For each input, whether it is the same at every step, `(batch, ...)`.
            The network fills it in.
    """

    counts_steps = False
    """Whether the outputs depend on the number of the step, also of an operation that
    does not take it."""
    is_static_if_inputs_are = True
    """Whether the operation runs once if its inputs are the same at every step; never
    if it takes the time step."""

    def __init__(self, call: PlannedCall, context: Context) -> None:
        self.call, self.context = call, context
        self.windows, self.means = context.windows, Means(context.windows)
        self.static: Sequence[bool] = ()
        self.operation, self.kind = call.operation, kind_of(call.operation)
        self.takes_time = wants_time_step(type(call.operation))  # type: ignore[arg-type]  # A class can be hashed.

    @property
    def waits_as_bytes(self) -> bool:
        """Whether the outputs are spikes that are bytes until they are read, see
        `Backend.spikes_wait_as_bytes`."""
        return False

    def start(self, inputs: list[Tensor]) -> HandlerState:
        """The state before the first step, given its inputs."""
        return ()

    def step(
        self, state: HandlerState, inputs: list[Tensor], t: Time
    ) -> tuple[HandlerState, list[Tensor]]:
        """`(state, outputs)` of one step, given its inputs."""
        raise NotImplementedError(
            f"{type(self).__name__} must implement `step(state, inputs, t)`."
        )

    def all_steps(
        self, state: HandlerState, inputs: list[Tensor]
    ) -> tuple[HandlerState, list[Tensor]]:
        """`(state, outputs)` of all steps, `(batch * T, ...)`.

        Args:
            state: `()`, or the state after earlier steps, with which these go on.
            inputs: List of tensors `(batch * T, ...)`, or `(batch, ...)` where they are
                the same at every step.
        """
        rows = self.rows(inputs)
        state = state or self.start(rows)
        return self.step(state, rows, None)

    def prepared(self, inputs: list[Tensor]) -> list[Tensor]:
        """The part of these inputs that `start`, `step` and `all_steps` are given."""
        return inputs

    def once(self, inputs: list[Tensor]) -> tuple[list[Tensor], Tensor | None]:
        """`(outputs, loss)` where all inputs are the same at every step; `loss` is
        `None` if there is none."""
        outputs, loss = self.apply(inputs)
        return outputs, plus(loss, self.regularization(outputs))

    def rates(
        self, state: HandlerState, inputs: list[Tensor]
    ) -> tuple[list[Tensor], Tensor | None]:
        """`(outputs, loss)` of rates, `(batch * W, ...)`, given the state after the
        last step."""
        raise NotImplementedError(
            f"{type(self).__name__} must implement `rates(state, inputs)`."
        )

    def replayed_state(self, state: HandlerState) -> HandlerState | None:
        """The state with which a second sweep over the same steps begins: what was
        drawn. `None`: with `start`."""
        return None

    def carried(self, state: HandlerState) -> Structure:
        """The state that passes from step to step in inference, with names: `()`, a
        tensor, or dicts and lists of tensors."""
        return ()

    def resumed(self, carried: Structure) -> HandlerState | None:
        """The state that carries this. `None`: that of `start`."""
        return None

    def membranes(self, state: HandlerState) -> Structure:
        """The part of a state whose NaN would look like silence."""
        return ()

    def release(self, state: HandlerState) -> HandlerState:
        """The state for rates and `commit`, given that after the last step. Called
        once."""
        return state

    def commit(self, state: HandlerState) -> None:
        """Called once at the end of a run: statistics go to the layer."""

    # What handlers share:

    def rows(self, inputs: list[Tensor]) -> list[Tensor]:
        """Inputs with a row for each sample and step, also where they are the same at
        every step."""
        timesteps = self.windows.timesteps
        return self._repeated(inputs, lambda x: time_axis.repeat(x, timesteps))

    def rates_of(self, inputs: list[Tensor]) -> list[Tensor]:
        """Inputs as rates, with a row for each sample and window, also where they are
        the same at every step.

        Those of integers and booleans, of which all steps are there, are their time
        means.
        """
        windows = self.windows

        def rates(x, same):
            if same or time_axis.is_float(x.dtype):
                return x
            return windows.means_over_steps(time_axis.widen(x))

        return self._repeated(list(map(rates, inputs, self.static)), windows.repeat)

    def _repeated(self, inputs, repeat):
        return [
            keras_internals.with_mask(repeat, x) if same else x
            for x, same in zip(inputs, self.static, strict=True)
        ]

    def _inputs_at(self, t: int, inputs: list[Tensor]) -> list[Tensor]:
        """The inputs of a step, given those of all steps, which are `(batch, ...)`
        where they are the same at every step."""
        timesteps = self.windows.timesteps
        return [
            x if same else at_step(x, t, timesteps)
            for x, same in zip(inputs, self.static, strict=True)
        ]

    def apply(
        self, inputs: Sequence[Any], t: Time = None
    ) -> tuple[list[Tensor], Tensor | None]:
        """`(outputs, loss)`: the outputs in Keras' order, and the sum of the losses
        that the layer adds, or `None`.

        Activity regularisation is not among them.
        """
        masks = [keras_internals.mask_of(x) for x in inputs]
        args, kwargs = tree.filled(
            (self.call.args, self.call.kwargs),
            inputs,
            lambda leaf: isinstance(leaf, Slot),
        )
        if self.call.takes_training:
            kwargs["training"] = self.context.training
        if self.takes_time:
            rows = ops.shape(inputs[0])[0]
            kwargs["time_step"] = self.context.step_of_rows(rows) if t is None else t
        with self.context.layout if self.kind.any_layout else contextlib.nullcontext():
            outputs, losses = keras_internals.call_aside(self.operation, args, kwargs)
        for x, mask in zip(inputs, masks, strict=True):
            # Keras' MultiHeadAttention takes the masks off its inputs.
            keras_internals.put_mask(x, mask)
        if isinstance(outputs, (list, tuple, dict)):
            outputs = keras.tree.flatten(outputs)
        else:
            outputs = [outputs]
        if not losses:
            return outputs, None
        return outputs, sum(ops.sum(time_axis.widen(loss)) for loss in losses)

    def regularization(self, outputs: list[Tensor]) -> Tensor | None:
        """The activity regularisation of outputs, divided by the number of their rows,
        as in Keras."""
        regularizer = getattr(self.operation, "activity_regularizer", None)
        if regularizer is None:
            return None
        # In half precision the sum over all steps and neurons could overflow.
        wide = map(time_axis.widen, outputs)
        return sum(
            regularizer(output) / ops.cast(ops.shape(output)[0], output.dtype)
            for output in wide
        )

    def regularization_of_step(self, outputs: list[Tensor], t: Time) -> Tensor | None:
        """The activity regularisation of a step, or of all steps for `None`; padding
        adds nothing."""
        if getattr(self.operation, "activity_regularizer", None) is None:
            return None
        context, windows = self.context, self.windows
        counted = []
        for output in outputs:
            wide = time_axis.widen(context.with_gradient_of_chosen(output, t))
            counted.append(windows.only_valid_at(t, wide))
        scale = windows.padding(context.training) / context.calls
        return time_axis.scaled(self.regularization(counted), scale)

    def regularization_of_rates(self, rates: list[Tensor]) -> Tensor | None:
        """The activity regularisation of rates, with windows weighted by their size."""
        windows = self.windows
        is_absent = getattr(self.operation, "activity_regularizer", None) is None
        if is_absent or windows.have_equal_weights:
            return self.regularization(rates)
        total = 0
        by_window = zip(*map(windows.cut, rates), strict=True)
        for window, outputs in enumerate(by_window):
            share = windows.share(window, self.context.training)
            loss = self.regularization(list(outputs))
            total = total + time_axis.scaled(loss, share)
        return total

    def _guarded(self, keep: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """A function for inputs and outputs of an operation that may be, or have a
        derivative that is, NaN for zeros.

        Args:
            keep: Function that leaves zeros, without gradient, in place of padding.

        Returns:
            `keep`, with Keras masks, if there is padding and the operation could need
            it. Otherwise, the identity.
        """
        is_safe = self.kind.affine and not may_use_masks(self.operation)
        if self.windows.mask is None or is_safe:
            return lambda tensor: tensor

        def guarded(tensor):
            return keras_internals.masked_as(keep(tensor), tensor)

        return guarded

    def _valid_rows(self, rows: Tensor, t: Time) -> Tensor | None:
        """The rows of a step, or of all, that are neither padding nor masked: booleans
        of their first axes; `None` if all."""
        valid, mask = self.windows.valid(t), keras_internals.row_mask(rows)
        if valid is None or mask is None:
            return valid if mask is None else mask
        return ops.logical_and(mask, time_axis.as_rows(valid, mask))

    def _only_valid_rows(self, rows: Tensor, t: Time) -> Tensor:
        """The rows of a step, or of all steps, with zeros, and no gradient, for what is
        padding or masked."""
        return time_axis.zero_unless(self._valid_rows(rows, t), rows)

    def _only_input(self, inputs: list[Tensor]) -> Tensor:
        """The input of an operation that has one."""
        if len(inputs) != 1:
            raise ValueError(
                f"Layer {self.operation.name!r} of type "
                f"{type(self.operation).__name__} takes one input tensor in a "
                f"SpikingModel. Received: {len(inputs)}. Call it on its input alone."
            )
        return inputs[0]


def plus(loss: Any, added: Any) -> Any:
    """The sum of two losses, each of which may be absent."""
    if tree.is_absent(added):
        return loss
    return added if tree.is_absent(loss) else loss + added


def stopped(carried: Structure) -> Structure:
    """The state that is carried to the next step, without gradient.

    Args:
        carried: Structure of tensors and other values, the states of all nodes.
    """
    return tree.map_leaves(
        lambda leaf: ops.stop_gradient(leaf) if ops.is_tensor(leaf) else leaf, carried
    )


def graft(value: Tensor, onto: Tensor, slope: float | Tensor) -> Tensor:
    """`value`, with a chosen derivative: `slope` with respect to `onto`.

    The derivative that `value` has of its own is dropped, and there is none with
    respect to `slope`.

    >>> keras_ratesnn.gradients.extend.graft(ops.ones(2), ops.zeros(2), 0.5).shape == (
    ...     2,
    ... )
    True

    Args:
        value: Tensor, the result.
        onto: Tensor of the same shape and dtype, through which the gradient flows on.
            Its value is not used.
        slope: Float, or a tensor of the same shape and dtype.
    """
    return engine.graft(value, onto, slope)


def at_step(rows: Tensor, t: int, timesteps: int) -> Tensor:
    """The tensor `(batch, ...)` of a step, of those of all steps, `(batch * T, ...)`,
    with its Keras mask."""
    return keras_internals.with_mask(
        lambda rows: time_axis.unfold(rows, timesteps)[:, t], rows
    )


def joined(steps: Sequence[Tensor]) -> Tensor:
    """The tensors `(batch, ...)` of all steps as `(batch * T, ...)`, with their Keras
    masks."""
    return keras_internals.with_mask(
        lambda *steps: time_axis.fold(ops.stack(steps, axis=1)), *steps
    )
