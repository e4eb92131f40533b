"""Self-distillation: several heads of one network learn from the labels, and from each
other where they are right."""

from typing import Any

import keras
from keras import ops

from keras_ratesnn._core import checks, registry
from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn._core.configs import ConfigOfAttributes
from keras_ratesnn.losses._agreement import (
    label_and_agreement_losses,
    label_probabilities,
)


@registry.register
class SelfDistillation(ConfigOfAttributes, keras.losses.Loss):
    """Self-distillation on rates, for a network with several heads, see
    `keras_ratesnn.models.add_branches`.

    Each head learns from the labels, α Σ_h CE(o_h, y), and from a teacher: the mean of
    the logits of those heads that classify the sample correctly, β Σ_h τ² KL(softmax(z
    / τ) ‖ softmax(o_h / τ)). A sample that no head classifies correctly has no teacher.

    Example, three heads and two classes; only the first two heads are right:

    >>> heads = np.array([[[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    >>> labels = np.array([0])
    >>> float(SelfDistillation(beta=0.0)(labels, heads)) > 0
    True
    >>> extra = SelfDistillation(alpha=0.0, beta=1.0, temperature=1.0)(labels, heads)
    >>> teacher, student = (
    ...     np.exp([1.5, 0.0]) / np.exp([1.5, 0.0]).sum(),
    ...     np.exp([2.0, 0.0]) / np.exp([2.0, 0.0]).sum(),
    ... )
    >>> float(extra) > float((teacher * np.log(teacher / student)).sum())
    True

    Args:
        alpha: Float >= 0, the weight α of the labels. Defaults to `1.0`.
        beta: Float >= 0, the weight β of the teacher. Defaults to `0.3`.
        temperature: Float > 0, the temperature τ. Defaults to `3.0`.
        reduction: How the losses of the samples are reduced, see `keras.losses.Loss`.
            Defaults to `"sum_over_batch_size"`.
        name: String, the name of the loss. Defaults to `"self_distillation"`.
        dtype: The dtype of the computation. Defaults to `None`, Keras' default float
            type.

    Call arguments:
        y_true: Tensor: integer labels `(batch,)` or `(batch, 1)`, or probabilities
            `(batch, classes)`; with probabilities a head is right if its largest logit
            belongs to the largest probability.
        y_pred: Tensor `(batch, heads, classes)`, the logits of all heads.
        sample_weight: Tensor that broadcasts to the losses of the samples, `(batch,)`.
            Defaults to `None`.

    Raises:
        TypeError: If a weight or the temperature is not a number.
        ValueError: If one is out of its range, the shapes do not fit, or an array has a
            label that is of no class. Of tensors, such a label makes the loss NaN.

    Source: Zhao, Yu et al., NeurIPS 2025, arXiv 2510.06254.
    """

    takes_labels = from_logits = True
    in_config = "alpha", "beta", "temperature"

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 0.3,
        temperature: float = 3.0,
        reduction: str | None = "sum_over_batch_size",
        name: str = "self_distillation",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.alpha = checks.real(
            "alpha", alpha, at_least=0, advice="It is the weight of the labels."
        )
        self.beta = checks.real(
            "beta", beta, at_least=0, advice="It is the weight of the teacher."
        )
        self.temperature = checks.real(
            "temperature", temperature, above=0, advice="It softens the probabilities."
        )

    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        checks.labels("y_true", y_true, y_pred)
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        probabilities = label_probabilities(
            y_true,
            y_pred,
            "the logits of all heads, (batch, heads, classes)",
            "keras_ratesnn.models.add_branches makes a network with such outputs.",
        )
        losses = label_and_agreement_losses(
            probabilities, y_pred, self.alpha, self.beta, self.temperature
        )
        return ops.sum(losses, axis=1)
