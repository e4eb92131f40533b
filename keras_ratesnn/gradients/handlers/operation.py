"""Any other operation, with or without weights: with the time step, integers, Keras
masks and losses of its own."""

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_ratesnn._core import keras_internals, time_axis
from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn._core.backend import engine
from keras_ratesnn.gradients.handlers.handler import (
    Handler,
    Time,
    at_step,
    joined,
    plus,
)
from keras_ratesnn.gradients.time.windows import join
from keras_ratesnn.layer_kinds import may_use_masks, seeds_of


class OperationState(NamedTuple):
    """The state of an operation.

    Attributes:
        loss: The losses of the steps so far.
        totals: The outputs of the steps so far, see `Means`.
        masks: The Keras masks of its inputs at the steps so far, likewise, by the index
            of the input.
    """

    loss: Any = ()
    totals: Any = ()
    masks: Any = ()


class OperationHandler(Handler):
    """Any operation without a kind of its own; on rates it has the time mean of its
    outputs, and its own derivative.

    Args: as in `Handler`.
    """

    adds_losses = False
    """Whether the layer has added a loss at a step of a run that records rates, which
    then have it."""

    _separates_windows = False
    """Whether each window is a call of its own on rates, with the same random
    numbers."""

    def step(self, state, inputs, t):
        masks = self._masks_in_time(inputs)
        outputs, loss = self.outputs_and_loss(inputs, t)
        return self.after(state or OperationState(), outputs, t, loss, inputs, masks)

    def outputs_and_loss(
        self, inputs: list[Tensor], t: Time
    ) -> tuple[list[Tensor], Tensor | None]:
        """`(outputs, loss)` of a step, or of all steps for `None`, before `after`."""
        guard = self._guarded(lambda x: self.windows.only_valid_at(t, x))
        guarded = list(map(guard, inputs))
        outputs, loss = self.apply(guarded, t)
        if loss is not None and self.context.chosen is not None:
            if t is None:
                loss = self._with_gradient_of_steps(loss, guarded)
            else:
                loss = self._with_chosen_gradient(loss, t)
        return list(map(guard, outputs)), loss

    def _with_chosen_gradient(self, loss, t):
        """A loss of a step, with the gradient that the step has."""
        if loss is None or self.context.chosen is None:
            return loss
        is_chosen = ops.take(self.context.chosen, t)
        return ops.where(is_chosen, loss, ops.stop_gradient(loss))

    def _with_gradient_of_steps(self, loss, rows):
        """A loss of all steps, with the derivative of the losses that the layer adds at
        the chosen ones alone."""
        timesteps, loss = self.windows.timesteps, ops.stop_gradient(loss)
        for t in range(timesteps):
            inputs = [at_step(x, t, timesteps) for x in rows]
            with self.on_rates(()):
                _, added = self.apply(inputs, t)
            if added is not None:
                loss = loss + self._with_chosen_gradient(added, t) / timesteps
                loss = loss - ops.stop_gradient(added) / timesteps
        return loss

    def after(
        self,
        state: Any,
        outputs: list[Tensor],
        t: Time,
        loss: Tensor | None = None,
        inputs: Sequence[Tensor] = (),
        masks: Any = (),
    ) -> tuple[Any, list[Tensor]]:
        """`(state, outputs)` after a step, or all steps for `None`, with these outputs
        and this loss."""
        if not self.context.records:
            loss = None if loss is None else loss / self.context.calls
            loss = plus(loss, self.regularization_of_step(outputs, t))
            if loss is not None:
                state = state._replace(loss=plus(state.loss, loss))
            return state, outputs
        self.adds_losses = self.adds_losses or loss is not None
        if not (masks or self._needs_mean(inputs)):
            return state, outputs
        for output in outputs if t is None else ():
            self.context.checked(output)
        totals = self.means.add(state.totals, outputs, t)
        if masks:
            before = [state.masks[index] for index in masks] if state.masks else ()
            after = self.means.add(before, list(masks.values()), t)
            state = state._replace(masks=dict(zip(masks, after, strict=True)))
        if t is None:
            # If the compiler postponed the means to the backward pass, all steps would
            # stay in memory until then.
            computed, totals = engine.optimization_barrier((outputs, totals))
            outputs = list(map(keras_internals.masked_as, computed, outputs))
        return state._replace(totals=totals), outputs

    def rates(self, state, inputs):
        if self.takes_time or (state and state.masks) or self._has_steps(inputs):
            rates, loss = self._in_time(state, inputs)
        elif self._separates_windows or (
            self.adds_losses and not self.windows.have_equal_weights
        ):
            rates, loss = self._by_window(state, inputs)
        else:
            guard = self._guarded(self.windows.only_counted)
            guarded = list(map(guard, self.rates_of(inputs)))
            with self.on_rates(state):
                rates, loss = self.apply(guarded)
            rates = list(map(guard, rates))
        rates = self.with_means(state, rates)
        return rates, plus(loss, self.regularization_of_rates(rates))

    def on_rates(
        self, state: Any, seeds: Sequence[Tensor] = ()
    ) -> AbstractContextManager[Any]:
        """A context for calls on rates: they leave the layer as it is, and draw the
        numbers of the steps.

        Args:
            state: See `rates`.
            seeds: The states of its random generators inside the context. Defaults to
                `()`: the current ones.
        """
        layer = self.operation
        has_state = not self.kind.function_of_tensors and isinstance(
            layer, keras.layers.Layer
        )
        variables = layer.variables if has_state else ()
        if variables and engine.loses_replaced_weights(layer):
            variables = [variable for variable in variables if not variable.trainable]
        if not variables:
            return contextlib.nullcontext()
        present = keras_internals.values_of(variables)
        values = list(zip(variables, present, strict=True))
        if seeds:
            values += zip(seeds_of(layer), seeds, strict=True)
        return keras_internals.Replaced(values, engine.assigned_weight)

    def _by_window(self, state, inputs):
        """`(rates, loss)` of each window separately, with the same random numbers;
        losses are weighted by windows' sizes."""
        windows, loss, by_window = self.windows, None, []
        cut = [
            [x] * len(windows) if same else windows.cut(x)
            for x, same in zip(inputs, self.static, strict=True)
        ]
        for window in range(len(windows)):
            with self.on_rates(state):
                outputs, added = self.apply([parts[window] for parts in cut])
            if added is not None:
                share = windows.share(window, self.context.training)
                loss = plus(loss, time_axis.scaled(added, share))
            by_window.append(outputs)
        return [join(parts) for parts in zip(*by_window, strict=True)], loss

    def with_means(
        self, state: Any, rates: list[Tensor], slope: float = 1.0
    ) -> list[Tensor]:
        """The recorded time means, with the derivatives of rates; the rates themselves
        where nothing was recorded."""
        if not (state and state.totals):
            return rates

        def with_mean(total, rate):
            mean = self.means.rows(total)
            if not time_axis.is_float(mean.dtype):
                return mean
            return engine.graft(time_axis.cast(mean, rate.dtype), rate, slope)

        return [
            with_mean(total, rate)
            for total, rate in zip(state.totals, rates, strict=True)
        ]

    def _needs_mean(self, inputs):
        """Whether rates need the means of the outputs.

        If an affine operation is the same at every step, its output rate follows from
        its input rate. For an operation with weights the recorded time mean is cheaper,
        but in single-step mode it would have to be carried from step to step.
        """
        if self.takes_time or not self.kind.affine or self._has_steps(inputs):
            return True
        return self.context.all_at_once and not self.kind.parameter_free

    def _has_steps(self, inputs):
        """Whether an input is of integers or booleans that change over time, which have
        no rate."""
        return any(
            not same and not time_axis.is_float(x.dtype)
            for x, same in zip(inputs, self.static, strict=True)
        )

    def _masks_in_time(self, inputs):
        """The Keras masks of the inputs of an operation that may use them, if they may
        change over time, by their index."""
        masks: dict[str, Tensor] = {}
        if not self.context.records or not may_use_masks(self.operation):
            return masks
        for index, (x, same) in enumerate(zip(inputs, self.static, strict=True)):
            mask = None if same else keras_internals.mask_of(x)
            if mask is not None:
                masks[str(index)] = ops.cast(mask, "bool")
        return masks

    def _in_time(self, state, inputs):
        """`(rates, loss)`: the time means, in each window, of the operation applied to
        the rate at each step."""
        windows, steps = self.windows, []
        masks = (state.masks if state else ()) or {}
        for index, (x, same) in enumerate(zip(inputs, self.static, strict=True)):
            if not same:
                if time_axis.is_float(x.dtype):
                    x = time_axis.fold(windows.at_each_step(x))
                if str(index) in masks:
                    mask = self.means.rows(masks[str(index)])
                    keras_internals.put_mask(x, mask)
            steps.append(x)
        outputs, loss = self._on_steps(state, steps)
        means = [
            windows.means_over_steps(y) if time_axis.is_float(y.dtype) else y
            for y in outputs
        ]
        return means, loss

    def _on_steps(self, state, inputs):
        """`(outputs, loss)` of the operation on the rates of all steps."""
        if self.takes_time:
            return self._step_by_step(inputs, lambda t: self.on_rates(state))
        with self.on_rates(state):
            return self.apply(self.rows(inputs))

    def _step_by_step(self, inputs, around):
        """`(outputs, loss)` of all steps, by a call for each, in the context
        `around(t)`."""
        timesteps, loss, by_step = self.windows.timesteps, None, []
        for t in range(timesteps):
            with around(t):
                outputs, added = self.apply(self._inputs_at(t, inputs), t)
            if added is not None:
                added = self._with_chosen_gradient(added, t) / timesteps
                loss = plus(loss, added)
            by_step.append(outputs)
        return list(map(joined, zip(*by_step, strict=True))), loss
