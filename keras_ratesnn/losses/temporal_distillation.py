r"""Distillation in time: the outputs of all steps learn from the labels, and from the
steps that are right."""

from typing import Any

import keras
from keras import ops

from keras_ratesnn._core import checks, keras_internals, registry
from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn._core.configs import ConfigOfAttributes
from keras_ratesnn.losses._agreement import (
    label_and_agreement_losses,
    label_probabilities,
)
from keras_ratesnn.losses._counted_steps import steps_and_counts, with_counts


@registry.register
class TemporalDistillation(ConfigOfAttributes, keras.losses.Loss):
    """Distillation in time: each step learns from the labels, and from the mean of the
    steps that are right.

        mean_t CE(o_t, y) + beta · mean_t τ² KL(softmax(z / τ) ‖ softmax(o_t / τ))

    z is the mean of the logits of those steps that classify the sample correctly,
    without gradient. A sample that no step classifies correctly has no second term. (In
    the authors' program its target is the uniform distribution.) Steps that agree make
    a network that can be run for fewer steps; see also
    `keras_ratesnn.callbacks.RandomTimesteps`. Use it with `return_sequences=True`, and
    with any gradient. The authors' third term, the divergence from another network, is
    not part of it: `keras_ratesnn.distillation.Distiller` adds it, with this loss for
    the student (docs/howto/distillation.md).

    Example:

    >>> inputs = keras.Input((4,))
    >>> network = keras.Model(
    ...     inputs,
    ...     keras.layers.Dense(3)(
    ...         keras_ratesnn.layers.LIF()(keras.layers.Dense(8)(inputs))
    ...     ),
    ... )
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4, return_sequences=True)
    >>> model.compile("sgd", TemporalDistillation())
    >>> history = model.fit(np.ones((8, 4)), np.zeros(8), verbose=0)

    Args:
        beta: Float >= 0, the weight of the second term. Defaults to `0.5`.
        temperature: Float > 0, the temperature τ. Defaults to `3.0`.
        reduction: How the losses of the samples are reduced, see `keras.losses.Loss`.
            Defaults to `"sum_over_batch_size"`.
        name: String, the name of the loss. Defaults to `"temporal_distillation"`.
        dtype: The dtype of the computation. Defaults to `None`, Keras' default float
            type.

    Call arguments:
        y_true: Tensor: integer labels `(batch,)` or `(batch, 1)`, or probabilities
            `(batch, classes)`; with probabilities a step is right if its largest logit
            belongs to the largest probability.
        y_pred: Tensor `(batch, T, classes)`, the logits of every step. Where it has a
            Keras mask `(batch, T)`, only the steps that are not masked count.
        sample_weight: Tensor that broadcasts to the losses of the samples, `(batch,)`.
            Defaults to `None`.

    Raises:
        TypeError: If `beta` or `temperature` is not a number.
        ValueError: If one is out of its range, the shapes do not fit, or an array has a
            label that is of no class. Of tensors, such a label makes the loss NaN.

    Source: ICML 2025, arXiv 2501.15925; what becomes of samples without a right step is
    that of arXiv 2510.06254.
    """

    takes_labels = from_logits = True
    in_config = "beta", "temperature"

    def __init__(
        self,
        beta: float = 0.5,
        temperature: float = 3.0,
        reduction: str | None = "sum_over_batch_size",
        name: str = "temporal_distillation",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.beta = checks.real(
            "beta",
            beta,
            at_least=0,
            advice="It is the weight of the steps that are right.",
        )
        self.temperature = checks.real(
            "temperature", temperature, above=0, advice="It softens the probabilities."
        )

    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        checks.labels("y_true", y_true, y_pred)
        return super().__call__(y_true, with_counts(y_pred, self.dtype), sample_weight)

    def call(self, y_true: Tensor, y_pred: Any) -> Tensor:
        y_pred, counts = steps_and_counts(y_pred)
        probabilities = label_probabilities(
            y_true,
            y_pred,
            "the logits of every step, (batch, T, classes)",
            "Create the SpikingModel with return_sequences=True.",
        )
        if counts is not None:
            # Masked steps may hold anything.
            y_pred = ops.where(counts[..., None] > 0, y_pred, ops.zeros_like(y_pred))
        losses = label_and_agreement_losses(
            probabilities, y_pred, 1.0, self.beta, self.temperature, counts
        )
        if counts is None:
            return ops.mean(losses, axis=1)
        number = ops.sum(counts, axis=1)
        mean = ops.sum(counts * losses, axis=1) / ops.maximum(number, 1.0)
        return keras_internals.put_mask(mean, number > 0)
