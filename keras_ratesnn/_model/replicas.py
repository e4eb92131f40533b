"""Training on several replicas: other noise on each, and gradients that weigh samples
equally.

Replicas see parts of the same batch; see `engine.replicas`. On JAX there are none,
because the compiler divides the whole batch, which gives the numbers of a single
device.
"""

import contextlib
import math

import keras
import numpy as np
from keras import ops

from keras_ratesnn._core import keras_internals
from keras_ratesnn._core.backend import engine

_SEED_DISTANCE = 0x9E3779B1
"""Between the seeds of two replicas: more than any number of draws."""


def own_noise(network):
    """A context in which a network draws other random numbers on each replica.

    The states of generators stay equal on all replicas, so a saved model can be loaded
    anywhere.
    """
    if engine.replicas.count() == 1:
        return contextlib.nullcontext()
    offset = ops.cast(engine.replicas.index(), "int64") * _SEED_DISTANCE
    return keras_internals.ShiftedSeeds(
        network, offset, in_threads=not engine.replicas.PROCESSES
    )


def weigh_by_size(loss, inputs):
    """The loss of a replica, with a gradient whose average over replicas is that of the
    mean over all samples.

    Keras and PyTorch average the gradients of replicas, whatever the sizes of their
    parts of the batch.

    Args:
        loss: Scalar tensor, a mean over the samples of this replica.
        inputs: Structure of tensors `(batch, ...)`.
    """
    if engine.replicas.count() == 1:
        return loss
    size = ops.cast(ops.shape(keras_internals.first_tensor(inputs))[0], loss.dtype)
    # The mean of nothing is not a number.
    loss = ops.where(size > 0, loss, ops.zeros_like(loss))
    (size_of_all,) = engine.replicas.sums(size)
    mean_size = size_of_all / engine.replicas.count()
    return ops.stop_gradient(loss) + size / mean_size * (loss - ops.stop_gradient(loss))


def weigh_by_mask(losses, outputs, sample_weight, training):
    """Weights of samples with which the loss of a replica, weighed by its size, divides
    by what counts in the whole batch.

    For outputs with a Keras mask, Keras takes a mean over what the mask of this replica
    leaves. Outside of training, processes have batches of their own.

    Args:
        losses: Structure of Keras losses, names and functions, one for each output or a
            single one.
        outputs: Structure of tensors.
        sample_weight: Structure of weights as Keras takes them, or `None`.
        training: Boolean.
    """
    if engine.replicas.PROCESSES and not training:
        return sample_weight
    flat = keras.tree.flatten(outputs)
    masks = [keras_internals.mask_of(output) for output in flat]
    if engine.replicas.count() == 1 or all(mask is None for mask in masks):
        return sample_weight
    losses, given = (
        flattened if len(flattened) == len(flat) else flattened * len(flat)
        for flattened in map(keras.tree.flatten, (losses, sample_weight))
    )
    return keras.tree.pack_sequence_as(
        outputs, list(map(_weight_of_mask, losses, masks, given))
    )


def _weight_of_mask(loss, mask, weight):
    if mask is None or _takes_mask(loss):
        return weight
    counted = ops.cast(mask, keras.config.floatx())
    counts, size = ops.sum(counted), ops.sum(ops.ones_like(counted))
    counts_of_all, size_of_all = engine.replicas.sums(counts, size)
    factor = (counts / size) / (counts_of_all / size_of_all)
    return factor * (
        ops.ones_like(counted) if weight is None else ops.cast(weight, counted.dtype)
    )


def _takes_mask(loss):
    """Whether a loss has a call of its own, as TET has, which gives a value for each
    sample and takes the mask for itself."""
    return (
        isinstance(loss, keras.losses.Loss)
        and type(loss).__call__ is not keras.losses.Loss.__call__
    )


def metrics_of_all(model, results):
    """`results()`, the metrics of a model, computed from the samples of all
    replicas."""
    if engine.replicas.count() == 1:
        return results()
    reduce = {"sum": ops.sum, "mean": ops.mean}
    totals = [
        (
            variable,
            ops.cast(
                reduce[variable.aggregation](
                    engine.replicas.gather(variable.value), axis=0
                ),
                variable.dtype,
            ),
        )
        for variable in model.metrics_variables
        if variable.aggregation in reduce
    ]
    with keras_internals.Values(totals):
        return results()


def gathered_numbers(numbers):
    """Integers of each replica, as an array `(replicas, ...)` that is the same on
    all."""
    if engine.replicas.count() == 1:
        return np.asarray(numbers)[None]
    return ops.convert_to_numpy(
        engine.replicas.gather(ops.convert_to_tensor(numbers, "int32"))
    )


def is_first():
    """Whether this process has the first replica, or all."""
    return not engine.replicas.PROCESSES or engine.replicas.index() == 0


def begin_training(given):
    """Makes the replicas of a model equal before training; raises an error if they
    cannot train together.

    Args:
        given: Dict, the arguments of `fit`, with `self`, the model.
    """
    if engine.replicas.count() == 1:
        return
    plans = gathered_numbers(
        [_batches(**given), given.get("epochs", 1), given.get("initial_epoch", 0)]
    )
    if len(set(map(tuple, plans.tolist()))) > 1:
        names = ("number of batches", "epochs", "initial_epoch")
        differ = {
            name: column.tolist()
            for name, column in zip(names, plans.T, strict=True)
            if len(set(column.tolist())) > 1
        }
        raise ValueError(
            "`fit` must have the same number of batches and epochs on all replicas, "
            f"which wait for each other in each step. Received, by replica: {differ} "
            "(-1 is an unknown number). Give each replica as many samples, or set "
            "steps_per_epoch."
        )
    share_weights(given["self"])


def check_training_call(model):
    """Makes the replicas of a model equal before they are first trained, for training
    loops without `fit`.

    Raises:
        ValueError: If the model is a part of another one, whose other weights nobody
            would average.
    """
    if (
        not engine.replicas.PROCESSES
        or engine.replicas.count() == 1
        or engine.replicas.in_data_parallel_module()
    ):
        return
    if not keras_internals.is_outermost(model):
        raise ValueError(
            "A SpikingModel inside another model cannot be trained by "
            f"{engine.replicas.count()} processes, which would average only its own "
            f"gradients. Received: model {model.name!r}. Wrap the outer model in "
            "torch.nn.parallel.DistributedDataParallel."
        )
    if not model._shares_weights:
        share_weights(model)


def share_weights(model):
    """Gives all replicas of a model the weights and the optimizer of the first one."""
    engine.replicas.share_first(model)
    model._shares_weights = True


def check_losses(losses):
    """Raises ValueError if a loss is no mean over samples, whose gradients cannot be
    averaged over replicas.

    Args:
        losses: Structure of Keras losses, names and functions.
    """
    if engine.replicas.count() == 1:
        return
    for loss in keras.tree.flatten(losses):
        reduction = getattr(loss, "reduction", None)
        if reduction in ("sum", "mean_with_sample_weight"):
            raise ValueError(
                f'A loss with reduction="{reduction}" cannot be trained on several '
                "replicas: their gradients are averaged, as those of means over their "
                'samples. Use reduction="sum_over_batch_size", the default.'
            )


_UNKNOWN = -1


def _batches(
    x=None,
    batch_size=None,
    validation_split=0.0,
    validation_data=None,
    steps_per_epoch=None,
    **_,
):
    """The number of batches of an epoch; `_UNKNOWN` if it cannot be known before."""
    if steps_per_epoch is not None:
        return steps_per_epoch
    first = keras_internals.first_tensor(x)
    if isinstance(first, np.ndarray) or ops.is_tensor(first):
        share = 1.0 if validation_data is not None else 1.0 - validation_split
        return math.ceil(int(first.shape[0] * share) / (batch_size or 32))
    try:
        return len(x)
    except TypeError:
        return _UNKNOWN
