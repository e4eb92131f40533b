r"""Rate-based backpropagation: the exact spiking forward pass, and one backward pass through firing rates.

A first walk runs the spiking network without gradient, in multi-step or single-step order, and records what a second walk
needs. The second walk, with gradient, runs the network once on firing rates, the time means of the spikes. The value of a rate
is the exact time mean of the spiking path, so the loss is the true loss of the spiking network. Its derivative is local:

    neuron                 ∂r/∂c = g, the eligibility, see `_eligibility`
    normalisation          derivative of normalising the mean input c, see `normalization.normalize_rate`
    any other operation    derivative of the operation at its input rate

so that ∂L/∂W = (∂L/∂c) rᵀ: autodiff stores one value per neuron instead of T, and backpropagates once.

Source: Yu et al., "Advancing Training Efficiency of Deep Spiking Neural Networks through Rate-based Backpropagation",
NeurIPS 2024. Unlike in the authors' program, the gradient is not divided by T: its scale is that of BPTT.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_ratesnn import layer_kinds
from keras_ratesnn._core import backend, checks, keras_internals, registry, time_axis, tree
from keras_ratesnn._core.annotations import Config, Structure
from keras_ratesnn.gradients import _element_wise, _eligibility, _state, _windows
from keras_ratesnn.gradients.base import GradientMethod, Rule, Run
from keras_ratesnn.gradients.forward import ForwardRule, noise_place
from keras_ratesnn.gradients.orders import AllSteps
from keras_ratesnn.gradients.signals import Signal, Steps, only_signal, with_tensors


@registry.register
class Rate(GradientMethod):
    """Rate-based backpropagation: one backward pass through firing rates, as in an ordinary network.

    The loss is that of the spiking network, and the gradient has the scale of BPTT's. The cost and memory of the backward pass
    do not grow with T. `windows` interpolates between this gradient and BPTT: each of W consecutive time windows has a rate. A
    training step then costs T + 2W forward passes and W times the memory of an ordinary network. One window gives the gradient
    of the paper, T windows that of BPTT.

    Args:
        windows: Integer W from 1 to T, or a tuple of sizes that add up to T. With an integer, each of the first W - 1 steps, in
            which membranes rise from rest, is a window of its own, and the last window holds the remaining steps. Defaults to
            `1`.
        last_step_statistics: Boolean, only used with `step_mode="single"`. If `True`, the rate pass takes the statistics of
            batch normalisation, and the frame of an input with time, from the last step only, like the authors' program.
            Otherwise it uses means over time, as in the paper. If every step has its own frame, the gradient of the first
            layer is then closer to BPTT's; otherwise there is no difference. Defaults to `False`.

    Raises:
        TypeError: If `windows` is not an integer or tuple of integers, or `last_step_statistics` not a boolean.
        ValueError: If a size is not >= 1, or `last_step_statistics=True` is combined with several windows. In training, if T
            steps cannot be split this way.

    Source: Yu et al., NeurIPS 2024; windows are an extension of this library.
    """

    def __init__(self, windows: int | Sequence[int] = 1, last_step_statistics: bool = False) -> None:
        self.windows = _checked_windows(windows)
        self.last_step_statistics = checks.boolean("last_step_statistics", last_step_statistics)
        if self.last_step_statistics and self.windows != 1:
            raise ValueError(
                "`last_step_statistics=True` needs a single rate for all steps. Received: "
                f"windows={self.windows}. Leave one of the two arguments out."
            )

    def call(self, run: Run) -> Structure:
        if not run.with_gradient:
            order = run.new_order()
            return order.run(ForwardRule(order, run.training, with_gradient=False), run)
        order = run.new_order(self._sizes(run))
        last_step = self.last_step_statistics and not order.sees_all_steps
        rule = RateRule(order, run.training, last_step)
        with backend.reading_once(run.network):
            outputs = order.run(RecordingRule(order, run.training, last_step), run)
            rates = run.walk([rule.begin(tensor, has_time) for tensor, has_time in run.inputs], rule)
        rule.finish()
        wanted = rule.at_each_step if run.return_sequences else rule.mean

        def with_derivative(value, signal):
            if not time_axis.is_float(value.dtype):
                return value
            return backend.graft(value, time_axis.cast(wanted(signal), value.dtype), 1.0)

        return tree.map_leaves(with_derivative, outputs, rates)

    def _sizes(self, run):
        """The sizes of the windows. In inference, if the windows do not fit, a single window with all steps."""
        if not run.training and not _windows.fit(self.windows, run.timesteps):
            return (run.timesteps,)
        return _windows.sizes_of(self.windows, run.timesteps)

    def check(self, neurons: Sequence[keras.layers.Layer]) -> None:
        for neuron in neurons:
            if neuron.couples_neurons:
                raise ValueError(
                    'gradient="rate" keeps one eligibility per neuron, so neurons must be independent. Received: layer '
                    f"{neuron.name!r}, whose thresholds depend on all membranes (threshold_stabilizer=True). Train with "
                    'gradient="sltt" or "bptt", or leave the stabilizer out.'
                )
            if not _eligibility.has_written_derivative(neuron.cell):
                _element_wise.check(neuron)

    def check_timesteps(self, timesteps: int) -> None:
        _windows.sizes_of(self.windows, timesteps)

    def get_config(self) -> Config:
        return {"windows": self.windows, "last_step_statistics": self.last_step_statistics}


def _checked_windows(windows):
    advice = "Pass the number of time windows, or a tuple of their sizes."
    if isinstance(windows, (tuple, list)) and windows:
        return tuple(checks.positive_integer("windows", size, advice=advice) for size in windows)
    return checks.positive_integer("windows", windows, advice=advice)


class RecordingRule(ForwardRule):
    """The spiking network without gradient; records what the rate pass needs.

    Args:
        order: See `Rule`.
        training: See `Rule`.
        last_step: Boolean, whether to record the statistics of the last step instead of their means.
    """

    def __init__(self, order, training, last_step):
        super().__init__(order, training, with_gradient=False)
        self.last_step = last_step

    def evaluate(self, function):
        return backend.without_gradient(function)

    def neuron_pass(self, neuron):
        return _eligibility.EligibilityPass(neuron.cell, neuron.compute_dtype, self.order.windows)

    def normalization(self, call):
        if call.kind.normalization.normalize_rate is None:
            raise ValueError(
                'gradient="rate" must know how a normalisation acts on rates. Received: layer '
                f'{call.operation.name!r} with renorm=True. Make it with renorm=False, or train with gradient="bptt".'
            )
        return super().normalization(call)

    def remember_statistics(self, call, mean, variance, mask):
        # 1 / mean_t(1 / (σ_t² + ε)) replaces σ² + ε.
        statistics = {"mean": mean, "precision": 1.0 / (variance + call.operation.epsilon)}
        place = _statistics_place(call)
        weights = None if mask is None else ops.cast(mask, "float32")
        if self.last_step:
            self.order.memory[place] = [statistics]
            if weights is not None:
                self.order.memory[_weights_place(call)] = weights
            return
        self.order.average(place, statistics)
        if weights is not None:
            self.evaluate(lambda: self.order.average_steps(_weights_place(call), weights))

    def remember(self, call, outputs):
        masks = self._masks_in_time(call)
        if masks:
            self.evaluate(lambda: self.order.average_steps(_masks_place(call), masks))
        if masks or self._is_needed(call):
            return self.evaluate(lambda: self.order.average_steps(call.place, outputs))
        return outputs

    def _masks_in_time(self, call):
        """The Keras masks of the inputs of an operation that may use them, if they may change over time, by their index."""
        masks = {str(index): self.order.mask(signal) for index, signal in enumerate(call.signals) if not signal.static}
        masks = {index: ops.cast(mask, "bool") for index, mask in masks.items() if mask is not None}
        return masks if masks and layer_kinds.may_use_masks(call.operation) else {}

    def _is_needed(self, call):
        """Whether the rate pass needs the recorded output of an operation.

        If an affine operation is the same at every step, its output rate follows from its input rate. For an operation with
        weights the recorded time mean is cheaper, but in single-step order it would have to be carried from step to step.
        """
        if self.takes_time(call) or not call.kind.affine:
            return True
        if any(not signal.static and not time_axis.is_float(signal.value.dtype) for signal in call.signals):
            return True
        return self.order.sees_all_steps and not call.kind.parameter_free

    def regularize(self, call, outputs):
        """Does nothing: the rate pass regularises rates."""

    def add_loss(self, call, loss, t=None):
        """The rate pass computes the losses of layers from rates."""
        if self.is_static(call):
            super().add_loss(call, loss, t)
        else:
            self.order.adding.add(call.place)

    def finish(self):
        """Does nothing: collected losses are added with those of the rate pass."""


def _statistics_place(call):
    """Key in an order's memory for the normalisation statistics of a call."""
    return f"statistics of {call.place}"


def _weights_place(call):
    """Key in an order's memory for the weights of rates in the statistics of a call: how often they are not masked."""
    return f"weights of {call.place}"


def _masks_place(call):
    """Key in an order's memory for the Keras masks, at all steps, of the inputs of a call that may use them."""
    return f"masks of {call.place}"


class RateRule(Rule):
    """The network on rates: recorded values of the spiking path, with the derivative of each operation.

    A signal that is not static has a rate for each time window, `(batch * W, ...)`, or is `Steps`.

    Args:
        order: The order in which a `RecordingRule` ran.
        training: See `Rule`.
        last_step: See `RecordingRule`.
    """

    def __init__(self, order, training, last_step):
        super().__init__(order, training)
        self.last_step = last_step
        self.windows = order.windows
        self._is_even = len(set(order.windows)) == 1

    def begin(self, inputs, has_time):
        if not has_time:
            return Signal(inputs, static=True)
        if self.last_step:
            return Signal(inputs[:, -1])
        return self._signal(time_axis.fold(inputs), lambda steps: _windows.means_over_steps(steps, self.windows))

    @staticmethod
    def _signal(tensor, rate_of=lambda rates: rates):
        return Signal(rate_of(tensor)) if time_axis.is_float(tensor.dtype) else Steps(tensor)

    def tensor(self, signal):
        """The rates of a signal, `(batch * W, ...)`."""
        if isinstance(signal, Steps):
            return _windows.means_over_steps(time_axis.widen(signal.value), self.windows)
        if not signal.static:
            return signal.value
        return keras_internals.with_mask(lambda tensor: _windows.repeat(tensor, self.windows), signal.value)

    def mean(self, signal):
        """The rate over all steps, `(batch, ...)`."""
        return signal.value if signal.static else _windows.mean(self.tensor(signal), self.windows)

    def at_each_step(self, signal):
        """The rate of its window at each step, `(batch, T, ...)`. The gradient of a step goes to the rate of its window."""
        if isinstance(signal, Steps):
            return time_axis.unfold(signal.value, self.order.timesteps)
        return _windows.at_each_step(self.tensor(signal), self.windows)

    def __call__(self, call):
        recorded: Any = self.order.memory.get(call.place)
        if call.kind.role == layer_kinds.NEURON:
            outputs = self.neuron(call, recorded)
        elif call.kind.role == layer_kinds.ENCODER:
            outputs = self._with_value(recorded, self.tensor(only_signal(call)), call.operation.rate_derivative)
        elif call.place in self.order.constants:
            return self.order.constants[call.place]
        elif self.normalizes(call):
            outputs = self._with_recorded(recorded, self.normalization(call))
        elif self.masks(call):
            rates = self.tensor(only_signal(call))
            outputs = time_axis.cast(rates, recorded.dtype) * _windows.repeat(recorded, self.windows)
        elif self._changes(call):
            outputs = self.timed(call, recorded)
        else:
            outputs = self.operation(call, recorded)
        self.regularize(call, outputs)
        return tree.map_leaves(self._signal, outputs)

    def regularize(self, call, outputs):
        """Regularises rates, weighting windows by their size."""
        if self._is_even or getattr(call.operation, "activity_regularizer", None) is None:
            self.order.regularize(call, outputs)
            return
        by_output = [_windows.cut(output, self.windows) for output in tree.flatten(outputs)]
        for of_window, size in zip(zip(*by_output, strict=True), self.windows, strict=True):
            self.order.regularize(call, list(of_window), size / self.order.timesteps)

    def neuron(self, call, recorded):
        rate = _eligibility.firing_rate(call.operation.cell, recorded, self.tensor(only_signal(call)), self.windows)
        return time_axis.cast(rate, call.operation.compute_dtype)

    def normalization(self, call):
        """Normalises with the statistics of all steps, or of each window if each step was normalised separately."""
        rates, factors = self._normalized(call), call.kind.normalization.step_factors
        if factors is None:
            return rates
        # The time mean in each window of the rate at each step.
        of_steps = ops.convert_to_tensor(factors(call.operation))[: self.order.timesteps]
        return time_axis.times_rows(rates, _windows.of_rows(_windows.means_over_steps(of_steps, self.windows), rates))

    def _normalized(self, call):
        layer, rates = call.operation, self.tensor(only_signal(call, beside=call.kwargs.get("mask")))
        normalize_rate = call.kind.normalization.normalize_rate
        # The authors' program, which uses the statistics of the last step, adds ε twice.
        epsilon = 0.0 if self.last_step else layer.epsilon
        recorded = self.order.memory[_statistics_place(call)]
        statistics = [(of["mean"], 1.0 / of["precision"] - epsilon) for of in recorded]
        weights = self.order.memory.get(_weights_place(call))
        if len(statistics) == 1:
            of_rows = _windows.weights_of_rows(ops.shape(rates)[0], self.windows)
            if None not in (weights, of_rows):
                weights = time_axis.times_rows(weights, of_rows)
            return normalize_rate(layer, rates, *statistics[0], of_rows if weights is None else weights)
        rates = _windows.cut(rates, self.windows)
        weights = [None] * len(rates) if weights is None else _windows.cut(weights, self.windows)
        by_window = zip(rates, statistics, weights, strict=True)
        return _windows.join([normalize_rate(layer, rate, *of_window, weight) for rate, of_window, weight in by_window])

    def operation(self, call, recorded):
        if self.draws(call) or (call.place in self.order.adding and not self._is_even):
            rates = self._by_window(call)
        else:
            rates = self._apply(call, *with_tensors(self.tensor, call))
        return self._with_recorded(recorded, rates)

    def _changes(self, call):
        """Whether an operation on rates is not the same at every step: it takes the step, integers, booleans or masks."""
        if self.takes_time(call) or _masks_place(call) in self.order.memory:
            return True
        return any(isinstance(signal, Steps) for signal in call.signals)

    def timed(self, call, recorded):
        """The time mean, in each window, of an operation applied to the rate at each step, for one that changes over time."""
        steps, masks = AllSteps(self.order.timesteps, self.windows), self.order.memory.get(_masks_place(call), {})

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
            return self._apply(call, args, kwargs, share=1.0 / self.order.timesteps)

        def rate(of_steps):
            return _windows.means_over_steps(of_steps, self.windows) if time_axis.is_float(of_steps.dtype) else of_steps

        if self.takes_time(call) or self.draws(call):
            outputs = steps.each(at_step)
        else:
            outputs = self._apply(call, *with_tensors(lambda signal: unfolded[id(signal)].value, call))
        return self._with_recorded(recorded, tree.map_leaves(rate, outputs))

    def _by_window(self, call):
        """Applies an operation to each window separately. Random numbers are the same; losses are weighted by window size."""

        def in_window(window):
            def tensor(signal):
                return signal.value if signal.static else _windows.cut(signal.value, self.windows)[window]

            args, kwargs = with_tensors(tensor, call)
            return self._apply(call, args, kwargs, share=self.windows[window] / self.order.timesteps)

        by_window = [in_window(window) for window in range(len(self.windows))]
        return tree.map_leaves(lambda *parts: _windows.join(parts), *by_window)

    def _apply(self, call, args, kwargs, share=1.0):
        """Applies an operation to rates, with the random numbers of the spiking path and without changing its state."""
        if not self.draws(call):
            with _state.kept(call):
                return self.apply(call, args, kwargs, share)
        seeds, noise = self.order.memory[noise_place(call)]
        before = backend.noise_state()
        with _state.kept(call, seeds):
            backend.set_noise_state(noise)
            outputs = self.apply(call, args, kwargs, share)
        backend.set_noise_state(before)
        return outputs

    def _with_recorded(self, recorded, rates):
        return rates if recorded is None else tree.map_leaves(self._with_value, recorded, rates)

    def _with_value(self, value, rate, slope=1.0):
        if not time_axis.is_float(value.dtype):
            return value
        return backend.graft(time_axis.cast(value, rate.dtype), rate, slope)
