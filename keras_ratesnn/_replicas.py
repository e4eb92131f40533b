"""What training on several replicas needs: other noise on each, and gradients that weigh samples equally.

Replicas see parts of the same batch; see `backend.replicas`. On JAX there are none, because the compiler divides the whole
batch, which gives the numbers of a single device.
"""

import contextlib
import math

import keras
import numpy as np
from keras import ops

from keras_ratesnn._core import backend, keras_internals

_SEED_DISTANCE = 0x9E3779B1
"""Between the seeds of two replicas: more than any number of draws."""


def own_noise(network):
    """A context in which a network draws other random numbers on each replica.

    The states of generators stay equal on all replicas, so a saved model can be loaded anywhere.
    """
    if backend.replicas.count() == 1:
        return contextlib.nullcontext()
    offset = ops.cast(backend.replicas.index(), "int64") * _SEED_DISTANCE
    return keras_internals.ShiftedSeeds(network, offset, backend.replicas.IN_THREADS)


def weigh_by_size(loss, inputs):
    """The loss of a replica, with a gradient whose average over replicas is that of the mean over all samples.

    Keras and PyTorch average the gradients of replicas, whatever the sizes of their parts of the batch.

    Args:
        loss: Scalar tensor, a mean over the samples of this replica.
        inputs: Structure of tensors `(batch, ...)`.
    """
    if backend.replicas.count() == 1:
        return loss
    size = ops.cast(ops.shape(keras_internals.first_tensor(inputs))[0], loss.dtype)
    # The mean of nothing is not a number.
    loss = ops.where(size > 0, loss, ops.zeros_like(loss))
    mean_size = ops.sum(backend.replicas.gather(ops.convert_to_tensor(size))) / backend.replicas.count()
    return ops.stop_gradient(loss) + size / mean_size * (loss - ops.stop_gradient(loss))


def metrics_of_all(model, results):
    """`results()`, the metrics of a model, computed from the samples of all replicas."""
    if backend.replicas.count() == 1:
        return results()
    reduce = {"sum": ops.sum, "mean": ops.mean}
    of_all = [
        (variable, ops.cast(reduce[variable.aggregation](backend.replicas.gather(variable.value), axis=0), variable.dtype))
        for variable in model.metrics_variables
        if variable.aggregation in reduce
    ]
    with keras.StatelessScope(of_all):
        return results()


def begin_training(model, fit_arguments):
    """Makes the replicas of a model equal before training; raises an error if they cannot train together.

    Args:
        model: A `SpikingModel`.
        fit_arguments: `inspect.BoundArguments` of `fit`.
    """
    if backend.replicas.count() == 1:
        return
    batches = _batches(**fit_arguments.arguments)
    of_all = ops.convert_to_numpy(backend.replicas.gather(ops.convert_to_tensor(batches, "int32")))
    if len(set(of_all.tolist())) > 1:
        raise ValueError(
            "`x` must have the same number of batches on all replicas, which wait for each other in each step. Received: "
            f"{[count if count >= 0 else 'unknown' for count in of_all.tolist()]} batches. Give each replica as many samples, "
            "or set steps_per_epoch."
        )
    backend.replicas.share_first([*model.variables, *getattr(model.optimizer, "variables", [])])


_UNKNOWN = -1


def _batches(x=None, batch_size=None, validation_split=0.0, steps_per_epoch=None, **_):
    """The number of batches of an epoch; `_UNKNOWN` if it cannot be known before."""
    if steps_per_epoch is not None:
        return steps_per_epoch
    first = keras_internals.first_tensor(x)
    if isinstance(first, np.ndarray) or ops.is_tensor(first):
        return math.ceil(int(first.shape[0] * (1.0 - validation_split)) / (batch_size or 32))
    return len(x) if hasattr(x, "__len__") else _UNKNOWN
