"""A loss on the outputs of every step, for models with `return_sequences=True`."""

import functools
import operator
from typing import Any

import keras
from keras import ops

from keras_ratesnn._core import checks, keras_internals, registry, time_axis
from keras_ratesnn._core.annotations import Config, Tensor
from keras_ratesnn.losses._counted_steps import steps_and_counts, with_counts

_DEFAULT_REDUCTION = "sum_over_batch_size"


@registry.register
class TET(keras.losses.Loss):
    """Temporal efficient training: a loss on each step's output, plus a term that pulls
    these outputs towards a target.

        (1 − weight) · mean_t loss(y, o_t) + weight · mean_t mean((o_t − target)²)

    A loss on the time mean only requires the steps to be right on average; this loss
    requires each of them to be right. Use it with `return_sequences=True`, and with any
    gradient. With `"rate"` each output has the derivative 1 with respect to the output
    rate.

    Example:

    >>> inputs = keras.Input((4,))
    >>> network = keras.Model(
    ...     inputs,
    ...     keras.layers.Dense(3)(
    ...         keras_ratesnn.layers.LIF()(keras.layers.Dense(8)(inputs))
    ...     ),
    ... )
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4, return_sequences=True)
    >>> model.compile(
    ...     "sgd", TET(keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    ... )
    >>> history = model.fit(np.ones((8, 4)), np.zeros(8), verbose=0)

    Args:
        loss: The loss of one step: a `keras.losses.Loss`, a function `(y_true, y_pred)`
            that returns a value for each sample, or the name of one. It must not have
            its own reduction: pass `reduction` to this loss.
        weight: Float in [0, 1], the weight λ of the second term. Defaults to `0.05`.
        target: Float φ, the target of the second term; the authors use the neurons'
            threshold. Defaults to `1.0`.
        reduction: How the losses of the samples are reduced, see `keras.losses.Loss`.
            Defaults to `"sum_over_batch_size"`.
        name: String, the name of the loss. Defaults to `"tet"`.
        dtype: The dtype of the computation. Defaults to `None`, Keras' default float
            type.

    Call arguments:
        y_true: Tensor `(batch, ...)`: labels in the format of `loss`, the same for all
            steps.
        y_pred: Tensor `(batch, T, ...)`, the output of every step. Where it has a Keras
            mask `(batch, T, ...)`, the means run over the steps that are not masked.
        sample_weight: Tensor that broadcasts to the losses of the samples, `(batch,)`.
            Defaults to `None`.

    Raises:
        TypeError: If `loss` is not a loss, or `weight` or `target` not a number.
        ValueError: If `weight` is not in [0, 1], a name is unknown, `loss` has its own
            reduction, or `y_pred` has no time axis.

    Source: Deng et al., "Temporal Efficient Training of Spiking Neural Network via
    Gradient Re-weighting", ICLR 2022.
    """

    def __init__(
        self,
        loss: Any,
        weight: float = 0.05,
        target: float = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str = "tet",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.loss = _checked_loss(loss, self.reduction)
        self.weight = checks.real(
            "weight",
            weight,
            at_least=0,
            at_most=1,
            advice="It is the weight of the second term.",
        )
        self.target = checks.real(
            "target", target, advice="It is the target of the outputs."
        )

    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        _check_steps(y_pred)
        return super().__call__(y_true, with_counts(y_pred, self.dtype), sample_weight)

    def call(self, y_true: Tensor, y_pred: Any) -> Tensor:
        y_pred, counts = steps_and_counts(y_pred)
        loss_of_samples = keras_internals.loss_of_samples(self.loss)
        # One step at a time: a loss may mix the samples of a batch, but must not mix
        # steps.
        steps = ops.unstack(y_pred, y_pred.shape[1], axis=1)
        totals, masks = [], []
        for step in steps:
            loss = loss_of_samples(y_true, step)
            masks.append(keras_internals.mask_of(loss))
            squares = _like(loss, ops.square(step - self.target))
            totals.append((1.0 - self.weight) * loss + self.weight * squares)
        # Samples that `loss` masks at every step count in neither term.
        mask = None
        if all(step_mask is not None for step_mask in masks):
            mask = functools.reduce(ops.logical_or, masks)
        if counts is None:
            mean = functools.reduce(operator.add, totals) / len(totals)
            return keras_internals.put_mask(mean, mask)
        counts = ops.unstack(counts, counts.shape[1], axis=1)
        weights = [_weights(totals[0], step) for step in counts]
        number = functools.reduce(operator.add, weights)
        weighed = map(operator.mul, weights, totals)
        mean = functools.reduce(operator.add, weighed) / ops.maximum(number, 1.0)
        counts_somewhere = number > 0
        if mask is not None:
            counts_somewhere = ops.logical_and(mask, counts_somewhere)
        return keras_internals.put_mask(mean, counts_somewhere)

    def get_config(self) -> Config:
        own = {
            "loss": keras.losses.serialize(self.loss),
            "weight": self.weight,
            "target": self.target,
        }
        return {**super().get_config(), **own}


def _checked_loss(loss: Any, reduction: str | None) -> Any:
    """Checks the argument `loss` and returns it as a `keras.losses.Loss` or a
    function."""
    if loss is None or not (isinstance(loss, (str, dict)) or callable(loss)):
        wanted = "a keras.losses.Loss, a function or a name"
        raise checks.wrong_type(
            "loss", wanted, loss, "It is the loss on one step's output."
        )
    try:
        checked = keras.losses.get(loss)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "`loss` must be a name that keras.losses.get knows. Received: "
            f'loss={loss!r}. Pass for example "sparse_categorical_crossentropy", or '
            "keras.losses.SparseCategoricalCrossentropy(from_logits=True)."
        ) from error
    if isinstance(checked, keras.losses.Loss) and checked.reduction not in (
        _DEFAULT_REDUCTION,
        reduction,
    ):
        raise ValueError(
            "`loss` must have the same reduction as TET, which reduces the losses "
            f"itself. Received: loss={checked!r} with "
            f"reduction={checked.reduction!r}, and reduction={reduction!r}. Pass "
            "`reduction` to TET."
        )
    return checked


def _check_steps(y_pred: Tensor) -> None:
    """Raises ValueError unless outputs can have a time axis of known length."""
    shape = tuple(
        (y_pred if hasattr(y_pred, "shape") else checks.tensor("y_pred", y_pred)).shape
    )
    if len(shape) < 3 or shape[1] is None:
        raise ValueError(
            "`y_pred` must be the outputs of every step, (batch, T, ...), with a "
            f"known number T of steps. Received: shape {shape}. Create the "
            "SpikingModel with return_sequences=True."
        )


def _like(losses: Tensor, squares: Tensor) -> Tensor:
    """The means of squares `(batch, ...)` over the axes that the losses do not have."""
    return ops.mean(squares, axis=tuple(range(len(losses.shape), len(squares.shape))))


def _weights(losses: Tensor, counts: Tensor) -> Tensor:
    """The mask of a step as weights of its losses."""
    if len(counts.shape) > len(losses.shape):
        raise ValueError(
            "`y_pred` may have a mask only for what `loss` gives a value each. "
            f"Received: a mask of shape (batch, T, ...) with {len(counts.shape) + 1} "
            f"axes, and losses of a step with {len(losses.shape)}. Leave out the mask, "
            "or pass sample_weight."
        )
    return ops.broadcast_to(time_axis.as_rows(counts, losses), ops.shape(losses))
