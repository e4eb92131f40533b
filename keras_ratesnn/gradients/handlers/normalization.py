"""Normalisation with batch statistics in training: of all steps at once, or of each
step; and of rates."""

from typing import Any, NamedTuple

from keras import ops

from keras_ratesnn._core import keras_internals, normalization, time_axis
from keras_ratesnn._graph import Slot
from keras_ratesnn.gradients.handlers.operation import OperationHandler
from keras_ratesnn.gradients.time.windows import join


class NormalizationState(NamedTuple):
    """The state of a normalisation.

    Attributes:
        statistics: For rates, the statistics of the steps so far: μ and 1 / (σ² + ε);
            where there is padding also how many values were free, with which the latter
            is weighted. Totals of `Means`, or lists of one tensor each for all steps.
        weights: How often rows are not masked, see `Means`.
        moments: Sums over the steps so far, for a layer that is given those of all
            steps: μ and σ² + μ², weighted with how much counts, and the sum of these
            weights.
        loss: The activity regularisation of the steps so far.
        totals: The outputs of the steps so far, if they have factors of steps, see
            `Means`.
    """

    statistics: Any = ()
    weights: Any = ()
    moments: Any = ()
    loss: Any = ()
    totals: Any = ()


class NormalizationHandler(OperationHandler):
    """A normalisation with batch statistics, of the steps, and of rates with the
    statistics of the steps.

    Args: as in `Handler`.
    """

    def __init__(self, call, context):
        super().__init__(call, context)
        facts: Any = self.kind.normalization
        self.facts = facts
        mask = call.kwargs.get("mask")
        # The place of its mask among the inputs, if the graph has one.
        self._mask_at = (
            call.inputs.index(mask.index) if isinstance(mask, Slot) else None
        )
        self._mean_and_variance = None
        if context.records and facts.normalize_rate is None:
            raise ValueError(
                'gradient="rate" must know how a normalisation acts on rates. '
                f"Received: layer {self.operation.name!r} with renorm=True. Make it "
                'with renorm=False, or train with gradient="bptt".'
            )

    def _input_and_mask(self, inputs):
        """The input, and its mask, which is in the graph or on the tensor, or
        `None`."""
        signals = list(inputs)
        if self._mask_at is None:
            mask = self.call.kwargs.get("mask")
        else:
            mask = signals.pop(self._mask_at)
        x = self._only_input(signals)
        return x, keras_internals.mask_of(x) if mask is None else mask

    def step(self, state, inputs, t):
        state = state or NormalizationState()
        x, mask = self._input_and_mask(inputs)
        weights = self._weights(x, mask, self.windows.valid(t))
        outputs, mean, variance = self.facts.normalize(self.operation, x, 1, weights)
        if self.context.records:
            state = self._recorded(state, x, mask, weights, mean, variance, t)
        if self.facts.after_steps is not None:
            moments = self._moments(state.moments, mean, variance, weights)
            state = state._replace(moments=moments)
        if self.facts.step_factors is not None:
            rows = self.context.step_of_rows(ops.shape(outputs)[0]) if t is None else t
            factors = ops.convert_to_tensor(self.facts.step_factors(self.operation))
            outputs = time_axis.times_rows(
                outputs, time_axis.factors_of_steps(factors, rows)
            )
        return self.after(state, [keras_internals.put_mask(outputs, mask)], t)

    def _needs_mean(self, inputs):
        return self.facts.step_factors is not None

    def _weights(self, x, mask, valid):
        """The weights of rows in statistics, of a shape that broadcasts to their first
        axes; `None` if all are equal."""
        if valid is None:
            return mask
        rows = ops.reshape(valid, (-1, *[1] * (len(x.shape) - 2)))
        if mask is None:
            return rows
        return time_axis.cast(rows, "float32") * time_axis.cast(mask, "float32")

    def _recorded(self, state, x, mask, weights, mean, variance, t):
        # 1 / mean_t(1 / (σ_t² + ε)) replaces σ² + ε.
        precision = 1.0 / (variance + self.operation.epsilon)
        new = [mean, precision]
        if self.windows.mask is not None and t is not None:
            # Steps of few sequences have few values, whose variance may be 0 by chance.
            # Their derivative is small, though.
            freedom = time_axis.cast(
                normalization.degrees_of_freedom(self.operation, x, weights), mean.dtype
            )
            rows = ops.shape(x)[0]
            new = [
                ops.broadcast_to(statistic, (rows, *ops.shape(statistic)))
                for statistic in (mean, precision * freedom, freedom)
            ]
        if t is None or self.context.last_step:
            # Those of all steps at once, or of the last one, are those of a single
            # window.
            statistics = [[statistic] for statistic in new]
        else:
            statistics = self.means.add(state.statistics, new, t)
        counts: Any = ()
        if mask is not None:
            counts = [ops.cast(mask, "float32")]
            if self.context.last_step:
                counts = [counts]
            else:
                counts = self.means.add(state.weights, counts, t)
        return state._replace(statistics=statistics, weights=counts)

    def _moments(self, moments, mean, variance, weights):
        rows = 1.0 if weights is None else ops.sum(time_axis.cast(weights, mean.dtype))
        new = [
            rows * mean,
            rows * (variance + ops.square(mean)),
            rows * ops.ones((), mean.dtype),
        ]
        if not moments:
            return new
        return [total + moment for total, moment in zip(moments, new, strict=True)]

    def once(self, inputs):
        """Updates the moving averages as often as calls on steps would."""
        windows = self.windows
        x, mask = self._input_and_mask(inputs)
        # What is the same at every step counts as often as there are steps.
        share = None if windows.mask is None else windows.share_of_steps()
        weights = self._weights(x, mask, share)
        outputs, mean, variance = self.facts.normalize(
            self.operation, x, times=self.context.calls, mask=weights
        )
        self._mean_and_variance = mean, variance
        outputs = [keras_internals.put_mask(outputs, mask)]
        return outputs, self.regularization(outputs)

    def rates(self, state, inputs):
        rates, windows = self._normalized(state, inputs), self.windows
        if self.facts.step_factors is not None:
            # The time mean in each window of the rate at each step.
            factors = ops.convert_to_tensor(self.facts.step_factors(self.operation))
            means = windows.means_of_factors(
                factors[: windows.timesteps], ops.shape(rates)[0]
            )
            rates = time_axis.times_rows(rates, means)
        outputs = self.with_means(state, [rates])
        return outputs, self.regularization_of_rates(outputs)

    def _normalized(self, state, inputs):
        """Normalises with the statistics of all steps, or of each window if each step
        was normalised separately."""
        windows, normalize_rate = self.windows, self.facts.normalize_rate
        rates, _ = self._input_and_mask(self.rates_of(inputs))
        statistics = self._statistics_by_window(state.statistics)
        weights = self._weights_of_rates(state.weights)
        if len(statistics) == 1 or windows.mask is not None:
            row_weights = windows.weights_of_rows(ops.shape(rates)[0])
            if weights is None:
                weights = row_weights
            elif row_weights is not None:
                weights = time_axis.times_rows(weights, row_weights)
        if len(statistics) == 1:
            return normalize_rate(self.operation, rates, *statistics[0], weights)
        weights = [None] * len(statistics) if weights is None else windows.cut(weights)
        normalized = []
        for window, rate in enumerate(windows.cut(rates)):
            mean, variance = statistics[window]
            normalized.append(
                normalize_rate(self.operation, rate, mean, variance, weights[window])
            )
        return join(normalized)

    def _weights_of_rates(self, weights):
        if not weights:
            return None
        return weights[0][0] if self.context.last_step else self.means.rows(weights[0])

    def _statistics_by_window(self, statistics):
        """The statistics `(mean, variance)` for each window."""
        if not (self.context.all_at_once or self.context.last_step):
            statistics = [self.means.by_window(total) for total in statistics]
        # The authors' program, which uses the statistics of the last step, adds ε
        # twice.
        epsilon = 0.0 if self.context.last_step else self.operation.epsilon
        means, precisions, *freedom = statistics
        if freedom:
            precisions = map(_mean_precision, precisions, freedom[0])
        return [
            (mean, 1.0 / precision - epsilon)
            for mean, precision in zip(means, precisions, strict=True)
        ]

    def commit(self, state):
        if self.facts.after_steps is None:
            return
        if self._mean_and_variance is None:
            mean, square, rows = state.moments
            rows = ops.where(rows > 0.0, rows, 1.0)
            mean, square = mean / rows, square / rows
            self._mean_and_variance = mean, ops.maximum(square - ops.square(mean), 0.0)
        self.facts.after_steps(self.operation, *self._mean_and_variance)


def _mean_precision(precision, freedom):
    """The mean precision of the steps of each sample; 1 for samples that are padding
    throughout."""
    freedom = freedom[..., None]
    counts = freedom > 0.0
    return ops.where(counts, precision, 1.0) / ops.where(counts, freedom, 1.0)
