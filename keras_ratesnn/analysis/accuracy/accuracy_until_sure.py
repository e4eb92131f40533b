"""The accuracy against the mean number of time steps, where samples stop as soon as
they are sure."""

import dataclasses
from typing import Any, NamedTuple, Self

import numpy as np

from keras_ratesnn._core import checks
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._steps.until_sure import answers_of, confidence_for
from keras_ratesnn.analysis import _accuracy
from keras_ratesnn.spiking_model import SpikingModel

_POINTS = 200


class UntilSure(NamedTuple):
    """Accuracy and steps of stopping at some confidence.

    Args:
        accuracy: Float.
        mean_steps: Float, the mean number of time steps.
        lost: Float, the share of the samples whose answer is wrong, but would be right
            after all steps.
    """

    accuracy: float
    mean_steps: float
    lost: float


@dataclasses.dataclass(frozen=True, eq=False)
class AccuracyUntilSure:
    """The result of `accuracy_until_sure`: what each sample answers after each step.

    Args:
        certainty: Array `(samples, T)`, the largest probability of the mean output so
            far.
        right: Boolean array `(samples, T)`, whether the class with that probability is
            right.
        last: Integer array `(samples,)`, the number of steps of each sample, without
            padding at the end.
    """

    certainty: np.ndarray
    right: np.ndarray
    last: np.ndarray

    def of(self, samples: Any) -> Self:
        """The results for some of the samples, given their indices or a boolean
        array."""
        return dataclasses.replace(
            self,
            certainty=self.certainty[samples],
            right=self.right[samples],
            last=self.last[samples],
        )

    def at(self, confidence: float) -> UntilSure:
        """The results of `keras_ratesnn.deploy.predict_until_sure` at this confidence.

        Raises:
            TypeError: If it is not a number.
            ValueError: If it is not from 0 to 1.
        """
        confidence = checks.real("confidence", confidence, at_least=0, at_most=1)
        is_sure = self.certainty >= (confidence if confidence < 1 else np.inf)
        steps = np.where(
            is_sure.any(axis=1),
            np.minimum(is_sure.argmax(axis=1) + 1, self.last),
            self.last,
        )
        right, in_the_end = self._right_after(steps), self._right_after(self.last)
        return UntilSure(
            float(right.mean()),
            float(steps.mean()),
            float((in_the_end & ~right).mean()),
        )

    def _right_after(self, steps):
        return np.take_along_axis(self.right, steps[:, None] - 1, axis=1)[:, 0]

    def confidence_for(self, error: float) -> float:
        """The confidence that `keras_ratesnn.deploy.calibrate_confidence` finds on
        these samples.

        Raises:
            TypeError: If `error` is not a number.
            ValueError: If `error` is not between 0 and 1, or there are too few samples
                for it.
        """
        return confidence_for(self, error)

    def plot(self) -> Any:
        """Draws the accuracy against the mean number of steps, for all confidences, and
        that after each number of steps.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ImportError: If Matplotlib is not installed.
        """
        by_step = [
            self._right_after(np.minimum(steps, self.last)).mean()
            for steps in range(1, self.certainty.shape[1] + 1)
        ]
        samples = len(self.last)
        figure, axes = _accuracy.figure_by_step(
            np.array(by_step),
            samples,
            f"as many steps for all {samples} samples",
            color="0.5",
            linestyle="",
            marker="o",
            capsize=2,
        )
        quantiles = np.quantile(self.certainty, np.linspace(0, 1, _POINTS))
        points = [self.at(confidence) for confidence in (0.0, *quantiles, 1.0)]
        accuracy, steps, _ = np.transpose(points)
        axes.plot(steps, accuracy, color="black", label="until sure")
        axes.set_xlabel("mean number of time steps")
        axes.legend(fontsize="small", loc="lower right")
        return figure


def accuracy_until_sure(
    model: SpikingModel, x: Structure, y: Any, batch_size: int = 128
) -> AccuracyUntilSure:
    """Measures for every confidence what `keras_ratesnn.deploy.predict_until_sure`
    would give, in one run of all steps.

    Example:

    >>> model = keras_ratesnn.models.load_pretrained("digits")
    >>> found = accuracy_until_sure(
    ...     model, np.random.uniform(0, 16, (8, 8, 8, 1)), np.zeros(8)
    ... )
    >>> found.at(0.0).mean_steps
    1.0

    Args:
        model: A `SpikingModel`, as for `predict_until_sure`.
        x: Inputs, likewise.
        y: Array, the labels: class indices, or one-hot vectors.
        batch_size: Integer, the number of samples processed at once. Defaults to `128`.

    Returns:
        `AccuracyUntilSure`.

    Raises:
        TypeError: As in `predict_until_sure`.
        ValueError: As there, or if labels do not fit.
    """
    answers = answers_of(model, x, y, batch_size)
    return AccuracyUntilSure(answers.certainty, answers.right, answers.last)
