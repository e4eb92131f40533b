"""Losses, outputs, gradients and weights of a few training steps, and how far they are
from others."""

import dataclasses

import keras
import numpy as np
from keras import ops

NEGLIGIBLE = 1e-5
"""A gradient that is smaller than this fraction of the largest is zero but for
rounding; it has no relative error."""


class LastOutputs(keras.metrics.Metric):
    """Stores the outputs of the last batch, or their time mean, instead of a number."""

    def __init__(self, shape):
        super().__init__(name="last_outputs")
        self.outputs = self.add_variable(shape, "zeros", name="outputs")

    def update_state(self, y, outputs, sample_weight=None):
        self.outputs.assign(
            ops.mean(outputs, axis=1) if len(outputs.shape) == 3 else outputs
        )

    def result(self):
        return ops.max(self.outputs)


@dataclasses.dataclass(frozen=True)
class Results:
    """What a few training steps computed.

    Attributes:
        losses: List of floats, one for each step.
        outputs: Array `(batch, classes)`, the outputs of the first step, or their time
            means.
        gradients: Dictionary from paths of trainable variables to arrays, the gradients
            of the first step.
        last_gradients: The same, of the last step.
        moving: Dictionary from paths of the other variables to arrays, after the last
            step.
    """

    losses: list
    outputs: np.ndarray
    gradients: dict
    last_gradients: dict
    moving: dict


def of_training(
    model, x, y, shape, loss, learning_rate, steps, jit_compile, calls_before=0
):
    """Compiles a model and trains it on one batch: the `Results`, and what its calls
    have used, as `model.engine`.

    Args:
        model: A `SpikingModel`.
        x: Array, the batch.
        y: Array, its labels, integers.
        shape: Tuple of integers, the shape of the outputs or of their time means.
        loss: A Keras loss, or a function.
        learning_rate: Float, of SGD.
        steps: Integer >= 1, the number of training steps.
        jit_compile: As in `SpikingModel.compile`.
        calls_before: Integer, the number of steps before that, whose changes of weights
            are undone: until a graph is replayed a step runs in eager mode, and its
            gradients are not those of the graph. Defaults to `0`.
    """
    outputs = LastOutputs(shape)
    model.compile(
        keras.optimizers.SGD(learning_rate),
        loss,
        metrics=[outputs],
        jit_compile=jit_compile,
    )
    weights = model.get_weights()
    for _ in range(calls_before):
        model.train_on_batch(x, y)
    model.set_weights(weights)
    losses, first = [], None
    for _ in range(steps):
        losses.append(float(model.train_on_batch(x, y)[0]))
        if first is None:
            first = _array(outputs.outputs), _gradients(model)
    moving = {
        variable.path: _array(variable) for variable in model.non_trainable_variables
    }
    return Results(losses, *first, _gradients(model), moving), model.engine


def _gradients(model):
    # PyTorch keeps those of the last step.
    return {
        variable.path: _array(variable.value.grad).copy()
        for variable in model.trainable_variables
    }


def _array(variable):
    return np.asarray(ops.convert_to_numpy(variable))


def relative_error(value, expected):
    """‖value − expected‖ / ‖expected‖."""
    return float(np.linalg.norm(value - expected) / np.linalg.norm(expected))


def largest(errors):
    """The largest of a dictionary of errors, NaN if one of them is; 0 if there are
    none."""
    # Python's `max` may pass over NaN.
    return float(np.max([0.0, *errors.values()]))


def gradient_errors(gradients, expected):
    """The relative error of each gradient, a dictionary of floats.

    A gradient that should be negligible is compared with the largest one: its error is
    0, or infinite.

    Args:
        gradients: Dictionary of arrays.
        expected: Dictionary of arrays with the same keys.
    """
    if gradients.keys() != expected.keys():
        raise ValueError(
            f"Gradients of different variables: {sorted(gradients)} and "
            f"{sorted(expected)}."
        )
    largest = max(np.linalg.norm(gradient) for gradient in expected.values())

    def error(name):
        if np.linalg.norm(expected[name]) >= NEGLIGIBLE * largest:
            return relative_error(gradients[name], expected[name])
        return (
            0.0
            if np.linalg.norm(gradients[name]) < NEGLIGIBLE * largest
            else float("inf")
        )

    return {name: error(name) for name in expected}
