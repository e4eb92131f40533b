"""One call of a model by a gradient method, as a function of tensors that can be
recorded."""

import dataclasses
import functools

import keras
import numpy as np
from keras import ops

from keras_ratesnn._core import keras_internals, time_axis
from keras_ratesnn.gradients.network import plain
from keras_ratesnn.gradients.time.windows import Windows


def outputs_of_run(model, run):
    """The outputs of a run, by the graphs of a model's calls.

    Args:
        model: A `SpikingModel`.
        run: `Run`.
    """
    method = model.gradient
    tensors = [tensor for tensor, _ in run.inputs]
    if run.mask is not None:
        tensors.append(run.mask)
    has_time = [has_time for _, has_time in run.inputs]
    settings = (tuple(has_time), run.training, run.with_gradient, model._settings())
    # What is recorded keeps no tensors.
    function = functools.partial(
        _outputs_of_tensors,
        model._run_method,
        method,
        dataclasses.replace(run, inputs=[], mask=None),
        has_time,
    )
    watched = (method,) if run.seed_generator is None else (method, run.seed_generator)
    return model._graphs.call(
        function, tensors, run.network, watched, settings, model._asked_jit_compile
    )


def _outputs_of_tensors(run_with, method, run, has_time, tensors):
    mask = tensors[len(has_time)] if len(tensors) > len(has_time) else None
    inputs = list(zip(tensors, has_time, strict=False))
    run = dataclasses.replace(run, inputs=inputs, mask=mask)
    return run_with(method, run)


def run_method(method, run):
    """`method.call(run)`, then the readouts, and then what follows these and
    `layers.TimeMean`, once.

    A method gives means and sequences as it gives any output of a network, with their
    gradient, so what follows is differentiated as in an ordinary network.
    """
    _, readouts, after = run.parts
    if after is None:
        return method.call(run)
    follow = method.call if method.runs_means else plain
    if not readouts.calls:
        return follow(_once(run, after, method.call(run)))
    run_of_steps = dataclasses.replace(run, return_sequences=True)
    inputs = _sequence_inputs(run, method.call(run_of_steps))
    outputs = follow(
        dataclasses.replace(
            run_of_steps, parts=(readouts, None, None), inputs=inputs, step_mode="multi"
        )
    )
    if run.return_sequences:
        return follow(
            dataclasses.replace(
                run, parts=(after, None, None), inputs=_sequence_inputs(run, outputs)
            )
        )
    # The outputs of the readouts are first.
    wanted = [call.operation.value for call in readouts.calls]
    wanted += ["mean"] * (len(outputs) - len(wanted))
    values = [
        value_over_time(steps, run.mask, value)
        for steps, value in zip(outputs, wanted, strict=False)
    ]
    return follow(_once(run, after, values))


def _sequence_inputs(run, sequences):
    """The inputs of a part, given the outputs of all steps of the one before."""
    for steps in sequences:
        # Padding is not among the masks that layers see.
        if keras_internals.mask_of(steps) is run.mask:
            keras_internals.take_mask_off(steps)
    return [(steps, True) for steps in sequences]


def _once(run, part, values):
    """The run of a part without time, given its inputs."""
    inputs = [(value, False) for value in values]
    return dataclasses.replace(
        run,
        parts=(part, None, None),
        inputs=inputs,
        timesteps=1,
        step_mode="multi",
        mask=None,
    )


def value_over_time(steps, mask, wanted):
    """The `"mean"`, `"last"` or `"max"` of the steps that count, `(batch, T, ...)` to
    `(batch, ...)`, with its Keras mask."""
    row_mask = keras_internals.mask_of(steps)
    if wanted == "mean":
        value = Windows((steps.shape[1],), mask).mean_over_all(time_axis.fold(steps))
    elif row_mask is None:
        value = steps[:, -1] if wanted == "last" else ops.max(steps, axis=1)
    else:
        counts = time_axis.as_rows(row_mask, steps)
        value = _last(steps, counts) if wanted == "last" else _largest(steps, counts)
    # A value counts where some step does.
    return keras_internals.put_mask(
        value,
        None
        if row_mask is None or len(row_mask.shape) < 3
        else ops.any(row_mask, axis=1),
    )


def spec_over_time(batch, timesteps, output):
    """The symbolic output of a model, given that of its network: of all steps, or for
    `timesteps=None` their mean."""
    _, *shape = output.shape
    if timesteps is None:
        dtype = time_axis.mean_dtype(output.dtype)
        return keras.KerasTensor((batch, *shape), dtype=dtype)
    return keras.KerasTensor((batch, timesteps, *shape), dtype=output.dtype)


def _last(steps, counts):
    """The value at the last step that counts; 0 if none does."""
    later = ops.flip(
        ops.cumsum(ops.cast(ops.flip(counts, axis=1), "int32"), axis=1), axis=1
    )
    is_last = ops.logical_and(counts, later == 1)
    return ops.sum(ops.where(is_last, steps, ops.zeros((), steps.dtype)), axis=1)


def _largest(steps, counts):
    """The largest value of the steps that count; 0 if none does."""
    largest = ops.max(ops.where(counts, steps, ops.cast(-np.inf, steps.dtype)), axis=1)
    return ops.where(ops.any(counts, axis=1), largest, ops.zeros((), steps.dtype))
