"""Gradients of a model from Keras' own training step, which is portable."""

import warnings

import keras
from keras import ops

from keras_ratesnn._core.backend import engine
from keras_ratesnn.testing._findings import to_numpy


def loss_and_gradients(model, x, weights):
    """The loss Σ outputs · weights of one batch in training and its gradients. Moving
    statistics are updated, weights are not.

    Args:
        model: A `keras.Model` with one output.
        x: Array.
        weights: Array like the model's output.

    Returns:
        `(loss, gradients)`: a float, and a dict from the path of each trainable
        variable to an array.
    """
    variables = model.trainable_variables
    # After one step from rest the momentum is minus the gradient.
    optimizer = keras.optimizers.SGD(learning_rate=1.0, momentum=0.5)
    model.compile(optimizer, weighted_sum, run_eagerly=not engine.EAGER_IS_SLOW)
    before = to_numpy(variables)
    with warnings.catch_warnings():
        # The checks report a missing gradient, which is 0 here, with its cause.
        warnings.filterwarnings("ignore", "Gradients do not exist")
        loss = model.train_on_batch(x, weights)
    gradients = {
        variable.path: -to_numpy(momentum)
        for variable, momentum in zip(variables, optimizer.momentums, strict=True)
    }
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    return float(loss), gradients


def weighted_sum(weights, outputs):
    """A loss for each sample, multiplied by the batch size, so that Keras' mean over
    the batch is a sum."""
    products = ops.reshape(weights * outputs, (ops.shape(outputs)[0], -1))
    return ops.sum(products, axis=1) * ops.cast(ops.shape(outputs)[0], outputs.dtype)
