"""Handlers with a state of their own, which loops over time run: neurons, layers that
mix time steps, readouts, traces."""

from typing import Any, NamedTuple

import keras

from keras_ratesnn._core import keras_internals, time_axis, tree
from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn.gradients.handlers.handler import (
    Handler,
    HandlerState,
)
from keras_ratesnn.gradients.time import loops


class LoopedHandler(Handler):
    """A handler with a state of its own: one step after the other, also where all steps
    are there.

    A subclass implements `start` and `advance`. A state is tensors, in a NamedTuple,
    with the batch as their first axis, whose shapes and dtypes stay; `()` if there is
    none. At steps that are padding for a sample it waits, and the outputs are 0. It
    passes through `context.between` before each step.

    Args: as in `Handler`.
    """

    is_static_if_inputs_are = False
    begins_incomplete = False
    """Whether the state of `start` has numbers, which `as_tensors` converts, or `()`,
    where later ones have tensors."""
    dtype: Any = None
    """The dtype of the outputs, if the layer has one."""
    moves_in_padding = False
    """Whether the state goes on at steps that are padding, with inputs of zero, instead
    of waiting."""

    @property
    def parallel(self) -> bool:
        """Whether all steps, where they are given, are computed by `at_once`, see
        `NeuronHandler`."""
        return False

    @property
    def fuses(self) -> bool:
        """Whether a backend may compile steps into one pass over memory: `advance`
        reads no variables but those of `cell`."""
        return False

    @property
    def loop_variables(self) -> list[keras.Variable] | None:
        """The variables that `advance` reads, where many steps may be a compiled loop,
        with one input, and one output of `dtype`; else `None`."""
        return None

    @property
    def key(self) -> tuple[Any, ...]:
        """Hashable: what `start`, `advance` and `summarize` depend on besides the cell,
        if it `fuses`."""
        return (type(self),)

    def prepared(self, inputs):
        """Inputs in double precision where the layer is, as its weights are, and only
        there. Keras casts the inputs of other layers."""
        if self.dtype is None:
            return inputs
        wide = time_axis.accumulation_dtype(self.dtype)

        def widened(x):
            if time_axis.accumulation_dtype(x.dtype) == wide:
                return x
            return keras_internals.with_mask(lambda x: time_axis.cast(x, wide), x)

        return list(map(widened, inputs))

    def advance(
        self, state: HandlerState, inputs: list[Tensor], phase: Any
    ) -> tuple[HandlerState, list[Tensor]]:
        """`(state, outputs)` of one step, as if it were no padding.

        Args:
            state: What `start`, or the step before, returned.
            inputs: List of tensors `(batch, ...)`.
            phase: What `phase` returned for the step: by default its number t, for
                neurons `()`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement `advance(state, inputs, phase)`."
        )

    def phase(self, t: int | Tensor, valid: Tensor | None = None) -> Any:
        """The facts about step `t` that `advance` needs; `valid` broadcasts to the
        input, if it moves where rows are padding."""
        return t

    def at_padding(self, state: HandlerState) -> HandlerState:
        """The state after a step that is padding, given that before it. By default it
        waits."""
        return state

    def as_tensors(self, state: HandlerState) -> HandlerState:
        """The state with all numbers converted to tensors, for compiled loops, if it
        `begins_incomplete`."""
        return state

    def membranes(self, state):
        return self.carried(state)

    def summarize(self, state: HandlerState) -> HandlerState:
        """The state for rates and `commit`, given that after the last step."""
        return state

    def step(self, state, inputs, t):
        valid = self._valid_rows(inputs[0], t)
        state, outputs = loops.step(self, state, inputs, t, valid)
        return state, _with_mask(outputs, inputs[0])

    def all_steps(self, state, inputs):
        for x, same in zip(inputs, self.static, strict=True):
            if not same:
                self.context.checked(x)
        first, timesteps = inputs[0], self.windows.timesteps
        valid = self.windows.mask
        if self.static[0] and keras_internals.mask_of(first) is not None:
            first = keras_internals.with_mask(
                lambda x: time_axis.repeat(x, timesteps), first
            )
        if keras_internals.row_mask(first) is not None:
            valid = time_axis.unfold(self._valid_rows(first, None), timesteps)
        state, outputs = loops.all_steps(self, state, inputs, self.static, valid)
        return state, _with_mask(outputs, first)


def _with_mask(outputs, x):
    return [keras_internals.masked_as(output, x) for output in outputs]


class SteppedState(NamedTuple):
    """The state of a layer with steps of its own, and that of an
    `OperationHandler`."""

    carried: Any = ()
    loss: Any = ()
    totals: Any = ()
    masks: Any = ()


class SteppedHandler(LoopedHandler):
    """A layer with steps of its own, `initial_state` and `step`.

    Attributes:
        layer: The object with these two methods that is run over time.
    """

    def __init__(self, call, context):
        super().__init__(call, context)
        self.layer, self.dtype = self.operation, self.operation.compute_dtype

    @property
    def loop_variables(self):
        return self.layer.variables

    def start(self, inputs):
        return SteppedState(self.layer.initial_state(self._only_input(inputs)))

    def advance(self, state, inputs, phase):
        outputs, after = self.layer.step(inputs[0], state.carried)
        # A loop carries tensors of one dtype, that of the initial state.
        after = tree.map_leaves(
            lambda new, old: time_axis.cast(new, old.dtype), after, state.carried
        )
        return SteppedState(after), [time_axis.cast(outputs, self.dtype)]

    def carried(self, state):
        return state.carried

    def resumed(self, carried):
        return SteppedState(carried)

    def release(self, state):
        return state._replace(carried=())
