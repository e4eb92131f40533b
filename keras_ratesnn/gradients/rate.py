r"""Rate-based backpropagation: the exact spiking forward, and one backward pass on firing rates.

Beside the spikes of all steps, which carry no gradient, every connection of the network carries one rate, the time mean
of the spikes, which does. The forward value of a rate is always the exact time mean of the spiking path, so the loss is
the true loss of the spiking network. Its derivative is local:

    neuron                 ∂r/∂c = g = (1/T) Σ_t h(v_t − θ) ρ_t,   ρ_1 = 1,  ρ_{t+1} = 1 + ρ_t · ∂v_{t+1}/∂v_t
    batch normalisation    that of the normalisation of the mean input c, with the statistics of all steps
    any other operation    its own, at the rate of its input

so that ∂L/∂W = (∂L/∂c) rᵀ: autodiff keeps one value a neuron, not T, and goes back once.

Source: Yu et al., "Advancing Training Efficiency of Deep Spiking Neural Networks through Rate-based Backpropagation",
NeurIPS 2024. Unlike the authors' program, the gradient is not divided by T: it has the scale of BPTT's.
"""

import contextlib

import keras
from keras import ops

from keras_ratesnn import backend, registry, time_axis
from keras_ratesnn.gradients.base import (
    GradientMethod,
    Rule,
    Signal,
    add_activity_loss,
    dropout_mask,
    map_signals,
    only_signal,
    run_cell,
    signals_in,
)
from keras_ratesnn.gradients.bptt import UnrolledRule


@registry.register
class Rate(GradientMethod):
    """Rate-based backpropagation: BPTT's loss and scale of gradient, at the backward cost of an ordinary network.

    The backward pass and the memory that it needs do not grow with T. A loss must be of the time mean of the outputs.

    Source: Yu et al., NeurIPS 2024.
    """

    trains_sequences = False

    def multi_step(self, timesteps, training):
        if not backend.records_gradient():
            return UnrolledRule(timesteps, training)
        return RateRule(timesteps, training)


class RateSignal(Signal):
    """Spikes (or currents) of all steps, without gradient, and their time mean, the rate, with gradient.

    Args:
        steps: Tensor `(batch * T, ...)`; `None` if the signal is the same at every step: the rate is then all there is.
        rate: Tensor `(batch, ...)`.
    """

    def __init__(self, steps, rate):
        static = steps is None
        super().__init__(ops.stop_gradient(rate if static else steps), static)
        self.rate = rate


class RateRule(Rule):
    def begin(self, inputs, has_time):
        if not has_time:
            return RateSignal(None, inputs)
        return RateSignal(time_axis.fold(inputs), ops.mean(inputs, axis=1))

    def mean(self, signal):
        return signal.rate

    def neuron(self, operation, args, kwargs):
        current = only_signal(operation, args, kwargs)
        with backend.no_gradient():
            spikes, rate, slope = respond(operation.cell, current, self.timesteps)
        dtype = operation.compute_dtype
        onto = ops.cast(current.rate, rate.dtype)
        rate = ops.cast(backend.graft(ops.stop_gradient(rate), onto, ops.stop_gradient(slope)), dtype)
        add_activity_loss(operation, rate)
        return RateSignal(ops.cast(spikes, dtype), rate)

    def batch_normalization(self, operation, args, kwargs):
        signal = only_signal(operation, args, kwargs)
        if signal.static or not (kwargs.get("training") and operation.trainable):
            return self.affine(operation, args, kwargs)
        return normalize(operation, signal)

    def dropout(self, operation, args, kwargs):
        signal = only_signal(operation, args, kwargs)
        if signal.static:
            return self.other(operation, args, kwargs)
        mask = dropout_mask(operation, signal.rate, kwargs)
        steps = time_axis.fold(time_axis.unfold(signal.steps, self.timesteps) * mask[:, None])
        return RateSignal(steps, signal.rate * mask)

    def affine(self, operation, args, kwargs):
        return self._operate(operation, args, kwargs, backend.derivative_only())

    def other(self, operation, args, kwargs):
        return self._operate(operation, args, kwargs, contextlib.nullcontext())

    def _operate(self, operation, args, kwargs, rate_context):
        """Value: the time mean of the operation on the spikes. Derivative: the operation's own on the rates."""
        rate_args, rate_kwargs = map_signals(lambda signal: signal.rate, args, kwargs)
        if all(signal.static for signal in signals_in(args, kwargs)):
            outputs = operation(*rate_args, **rate_kwargs)
            return keras.tree.map_structure(lambda rate: RateSignal(None, rate), outputs)

        with _without_activity_loss(operation):
            with backend.no_gradient():
                step_args, step_kwargs = map_signals(lambda signal: signal.folded(self.timesteps), args, kwargs)
                steps = operation(*step_args, **step_kwargs)
            with rate_context:
                rates = operation(*rate_args, **rate_kwargs)
        signals = keras.tree.map_structure(self._join, steps, rates)
        for signal in keras.tree.flatten(signals):
            add_activity_loss(operation, signal.rate)
        return signals

    def _join(self, steps, rate):
        with backend.no_gradient():
            value = ops.stop_gradient(time_axis.mean(steps, self.timesteps))
        return RateSignal(steps, backend.graft(value, rate, 1.0))


def respond(cell, current, timesteps):
    """The spikes of a population of neurons, and how their firing rate answers to a constant shift of the input.

    Args:
        cell: A `NeuronCell`.
        current: `Signal`, the input current of every step.
        timesteps: Integer T.

    Returns:
        `(spikes, rate, slope)`: all spikes `(batch * T, ...)`, their time mean r and its derivative g = ∂r/∂c, the
        eligibility, both `(batch, ...)`.
    """
    all_spikes = []
    rate = 0.0
    slope = 0.0
    sensitivity = 1.0  # ρ_t = ∂v_t/∂c
    for membrane, spikes in run_cell(cell, current, timesteps):
        all_spikes.append(spikes)
        rate = rate + spikes
        surrogate_derivative = cell.surrogate_derivative(membrane)
        slope = slope + surrogate_derivative * sensitivity
        sensitivity = 1.0 + sensitivity * cell.membrane_derivative(membrane, spikes, surrogate_derivative)
    return time_axis.fold(ops.stack(all_spikes, axis=1)), rate / timesteps, slope / timesteps


def normalize(layer, signal):
    """Batch normalisation in training: one set of statistics over batch, space and time, for spikes and rates.

    The rate path is (c − μ) / sqrt(σ² + ε) · γ + β with the values of μ and σ² from all T · batch rows and the derivatives
    of the mean and variance of the rate rows (`method` "rate_M" of the paper), so its value is the time mean of the
    spiking path. Moving statistics are updated once.

    Args:
        layer: A `keras.layers.BatchNormalization`.
        signal: `RateSignal`, not static.

    Returns:
        A `RateSignal`.
    """
    if layer.renorm:
        raise ValueError(
            f"Rate training supports batch normalisation without renorm. Received: layer {layer.name!r} with renorm=True. "
            'Make it renorm=False, or train with gradient="bptt".'
        )
    dtype = time_axis.accumulation_dtype(signal.rate.dtype)
    steps, rate = ops.cast(signal.steps, dtype), ops.cast(signal.rate, dtype)
    axes = [axis for axis in range(len(rate.shape)) if axis != layer.axis % len(rate.shape)]
    synchronized = {"synchronized": True} if layer.synchronized else {}

    with backend.no_gradient():
        mean, variance = ops.moments(steps, axes, keepdims=True, **synchronized)
    mean, variance = ops.stop_gradient(mean), ops.stop_gradient(variance)
    for moving, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        moving.assign(moving * layer.momentum + ops.reshape(value, moving.shape) * (1.0 - layer.momentum))

    mean_of_rate, variance_of_rate = ops.moments(rate, axes, keepdims=True, **synchronized)
    rate = _transform(layer, rate, backend.graft(mean, mean_of_rate, 1.0), backend.graft(variance, variance_of_rate, 1.0))
    with backend.no_gradient():
        steps = _transform(layer, steps, mean, variance)
    return RateSignal(ops.cast(steps, layer.compute_dtype), ops.cast(rate, layer.compute_dtype))


def _transform(layer, inputs, mean, variance):
    scale = ops.rsqrt(variance + layer.epsilon)
    if layer.gamma is not None:
        scale = scale * ops.reshape(ops.cast(layer.gamma, inputs.dtype), scale.shape)
    shift = -mean * scale
    if layer.beta is not None:
        shift = shift + ops.reshape(ops.cast(layer.beta, inputs.dtype), scale.shape)
    return inputs * scale + shift


@contextlib.contextmanager
def _without_activity_loss(operation):
    """The operation runs twice, on spikes and on rates; its activity regularisation is to be added once."""
    regularizer = getattr(operation, "activity_regularizer", None)
    if regularizer is None:
        yield
        return
    operation.activity_regularizer = None
    try:
        yield
    finally:
        operation.activity_regularizer = regularizer
