"""The second walk of rate-based backpropagation: the network on rates, with gradient."""

import keras
from keras import ops

from keras_ratesnn import layer_kinds
from keras_ratesnn._core import backend, keras_internals, time_axis, tree
from keras_ratesnn.gradients import _rates_of_neurons, _state, _windows
from keras_ratesnn.gradients.rule import Rule
from keras_ratesnn.gradients.signals import Signal, Steps, only_signal, with_tensors
from keras_ratesnn.gradients.step_modes import MultiStep


class RateRule(Rule):
    """The network on rates: recorded values of the spiking path, with the derivative of each operation.

    A signal that is not static has a rate for each time window, `(batch * W, ...)`, or is `Steps`.

    Args:
        step_mode: The step mode of the `RecordingRule`, with its record.
        training: See `Rule`.
        last_step: See `RecordingRule`.
    """

    def __init__(self, step_mode, training, last_step):
        super().__init__(step_mode, training)
        self.last_step = last_step
        self.windows = step_mode.windows

    def begin(self, inputs, has_time):
        if not has_time:
            return Signal(inputs, static=True)
        if self.last_step:
            return Signal(inputs[:, -1])
        return self._signal(time_axis.fold(inputs), self.windows.means_over_steps)

    @staticmethod
    def _signal(tensor, rate_of=lambda rates: rates):
        return Signal(rate_of(tensor)) if time_axis.is_float(tensor.dtype) else Steps(tensor)

    def tensor(self, signal):
        """The rates of a signal, `(batch * W, ...)`."""
        if isinstance(signal, Steps):
            return self.windows.means_over_steps(time_axis.widen(signal.value))
        if not signal.static:
            return signal.value
        return keras_internals.with_mask(self.windows.repeat, signal.value)

    def mean(self, signal):
        """The rate over all steps, `(batch, ...)`."""
        return signal.value if signal.static else self.windows.mean(self.tensor(signal))

    def at_each_step(self, signal):
        """The rate of its window at each step, `(batch, T, ...)`. The gradient of a step goes to the rate of its window."""
        if isinstance(signal, Steps):
            return time_axis.unfold(signal.value, self.step_mode.timesteps)
        return self.windows.at_each_step(self.tensor(signal))

    def __call__(self, call):
        recorded = self.step_mode.record.outputs.get(call.key)
        if call.kind.role == layer_kinds.NEURON:
            outputs = self.neuron(call)
        elif call.kind.role == layer_kinds.ENCODER:
            outputs = self._with_value(recorded, self.tensor(only_signal(call)), call.operation.rate_derivative)
        elif call.kind.role == layer_kinds.TIME_MIXING:
            outputs = self._with_value(recorded, self.mixing(call))
        elif call.key in self.step_mode.constants:
            return self.step_mode.constants[call.key]
        elif self.normalizes(call):
            outputs = self._with_recorded(recorded, self.normalization(call))
        elif self.masks(call):
            rates, mask = self.tensor(only_signal(call)), self.step_mode.record.random_masks[call.key]
            outputs = time_axis.cast(rates, mask.dtype) * self.windows.repeat(mask)
        elif self._changes(call):
            outputs = self.timed(call, recorded)
        else:
            outputs = self.operation(call, recorded)
        self.regularize(call, outputs)
        return tree.map_leaves(self._signal, outputs)

    def regularize(self, call, outputs):
        """Regularises rates, weighting windows by their size."""
        if self.windows.have_equal_weights or getattr(call.operation, "activity_regularizer", None) is None:
            self.step_mode.regularize(call, outputs)
            return
        by_output = [self.windows.cut(output) for output in tree.flatten(outputs)]
        for window, of_window in enumerate(zip(*by_output, strict=True)):
            self.step_mode.regularize(call, list(of_window), self.windows.share(window))

    def neuron(self, call):
        recorded = self.step_mode.record.neurons[_rates_of_neurons.QUANTITY, call.key]
        mean_input, share = self.tensor(only_signal(call)), self.step_mode.record.weights.get(call.key)
        if share is not None:
            # Where rows are masked at some steps, the input changes at the others alone: by more than its mean does.
            by = ops.where(share > 0.0, 1.0 / ops.maximum(share, keras.config.epsilon()), 0.0)
            mean_input = backend.graft(mean_input, mean_input, time_axis.as_rows(by, mean_input))
        rate = _rates_of_neurons.firing_rate(call.operation.cell, recorded, mean_input, self.windows)
        return time_axis.cast(rate, call.operation.compute_dtype)

    def mixing(self, call):
        """The time mean, in each window, of a layer that mixes time steps, given the rate at each step."""
        steps = call.operation.in_time(self.training).over_time(self.at_each_step(only_signal(call)))
        return time_axis.cast(self.windows.means_over_steps(time_axis.fold(steps)), call.operation.compute_dtype)

    def normalization(self, call):
        """Normalises with the statistics of all steps, or of each window if each step was normalised separately."""
        rates, factors = self._normalized(call), call.kind.normalization.step_factors
        if factors is None:
            return rates
        # The time mean in each window of the rate at each step.
        of_steps = ops.convert_to_tensor(factors(call.operation))[: self.step_mode.timesteps]
        return time_axis.times_rows(rates, self.windows.means_of_factors(of_steps, ops.shape(rates)[0]))

    def _normalized(self, call):
        layer, rates = call.operation, self.tensor(only_signal(call, beside=call.kwargs.get("mask")))
        normalize_rate = call.kind.normalization.normalize_rate
        # The authors' program, which uses the statistics of the last step, adds ε twice.
        epsilon = 0.0 if self.last_step else layer.epsilon
        recorded = self.step_mode.record.statistics[call.key]
        statistics = [(of["mean"], 1.0 / self._precision(of) - epsilon) for of in recorded]
        weights = self.step_mode.record.weights.get(call.key)
        if len(statistics) == 1 or self.windows.mask is not None:
            of_rows = self.windows.weights_of_rows(ops.shape(rates)[0])
            if None not in (weights, of_rows):
                weights = time_axis.times_rows(weights, of_rows)
            weights = of_rows if weights is None else weights
        if len(statistics) == 1:
            return normalize_rate(layer, rates, *statistics[0], weights)
        rates = self.windows.cut(rates)
        weights = [None] * len(rates) if weights is None else self.windows.cut(weights)
        by_window = zip(rates, statistics, weights, strict=True)
        return _windows.join([normalize_rate(layer, rate, *of_window, weight) for rate, of_window, weight in by_window])

    @staticmethod
    def _precision(statistics):
        """The mean precision of the steps; with padding that of each sample, and 1 for samples that are padding throughout."""
        precision, freedom = statistics["precision"], statistics.get("freedom")
        if freedom is None:
            return precision
        counts = freedom[..., None] > 0.0
        return ops.where(counts, precision, 1.0) / ops.where(counts, freedom[..., None], 1.0)

    def operation(self, call, recorded):
        if self.draws(call) or (call.key in self.step_mode.adds_losses and not self.windows.have_equal_weights):
            rates = self._by_window(call)
        else:
            guard = self.guarded(call, self.windows.only_counted)
            rates = self._apply(call, *with_tensors(lambda signal: guard(self.tensor(signal)), call))
            rates = tree.map_leaves(guard, rates)
        return self._with_recorded(recorded, rates)

    def _changes(self, call):
        """Whether an operation on rates is not the same at every step: it takes the step, integers, booleans or masks."""
        if self.takes_time(call) or call.key in self.step_mode.record.input_masks:
            return True
        return any(isinstance(signal, Steps) for signal in call.signals)

    def timed(self, call, recorded):
        """The time mean, in each window, of an operation applied to the rate at each step, for one that changes over time."""
        steps = MultiStep(self.step_mode.timesteps, self.windows.sizes, self.windows.mask)
        masks = self.step_mode.record.input_masks.get(call.key, {})

        def at_each_step(index, signal):
            if signal.static:
                return Signal(steps.tensor(signal))
            rates = time_axis.fold(self.at_each_step(signal))
            return Signal(keras_internals.put_mask(rates, masks.get(str(index))))

        at_steps = [at_each_step(index, signal) for index, signal in enumerate(call.signals)]
        unfolded = dict(zip(map(id, call.signals), at_steps, strict=True))

        def at_step(t):
            args, kwargs = with_tensors(lambda signal: steps.at(unfolded[id(signal)], t), call)
            kwargs = {**kwargs, "time_step": t} if self.takes_time(call) else kwargs
            return self._apply(call, args, kwargs, share=1.0 / self.step_mode.timesteps)

        def rate(of_steps):
            return self.windows.means_over_steps(of_steps) if time_axis.is_float(of_steps.dtype) else of_steps

        if self.takes_time(call) or self.draws(call):
            outputs = steps.each(at_step)
        else:
            outputs = self._apply(call, *with_tensors(lambda signal: unfolded[id(signal)].value, call))
        return self._with_recorded(recorded, tree.map_leaves(rate, outputs))

    def _by_window(self, call):
        """Applies an operation to each window separately. Random numbers are the same; losses are weighted by window size."""

        def in_window(window):
            def tensor(signal):
                return signal.value if signal.static else self.windows.cut(signal.value)[window]

            args, kwargs = with_tensors(tensor, call)
            return self._apply(call, args, kwargs, share=self.windows.share(window))

        by_window = [in_window(window) for window in range(len(self.windows))]
        return tree.map_leaves(lambda *parts: _windows.join(parts), *by_window)

    def _apply(self, call, args, kwargs, share=1.0):
        """Applies an operation to rates, with the random numbers of the spiking path and without changing its state."""
        if not self.draws(call):
            with _state.kept(call):
                return self.apply(call, args, kwargs, share)
        seeds, noise = self.step_mode.record.noise[call.key]
        with _state.kept(call, seeds), backend.repeated_noise(noise):
            return self.apply(call, args, kwargs, share)

    def _with_recorded(self, recorded, rates):
        return rates if recorded is None else tree.map_leaves(self._with_value, recorded, rates)

    def _with_value(self, value, rate, slope=1.0):
        if not time_axis.is_float(value.dtype):
            return value
        return backend.graft(time_axis.cast(value, rate.dtype), rate, slope)
