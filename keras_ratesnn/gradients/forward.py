"""The plain spiking network, which is the forward pass of every training method, in either step mode."""

import contextlib
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_ratesnn import layer_kinds
from keras_ratesnn._core import backend, keras_internals, time_axis, tree
from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn._graph import Call
from keras_ratesnn.gradients._mixing_pass import MixingPass
from keras_ratesnn.gradients.neuron_pass import NeuronPass
from keras_ratesnn.gradients.rule import Rule
from keras_ratesnn.gradients.signals import Signal, only_signal, with_tensors
from keras_ratesnn.gradients.step_modes import StepMode


class ForwardRule(Rule):
    """The plain spiking network; differentiating it with autodiff is BPTT.

    A subclass may override `evaluate`, `neuron_pass`, and what is recorded of each kind of operation.

    Args:
        step_mode: See `Rule`.
        training: Boolean, whether layers behave as in training.
        with_gradient: Boolean, whether operations that depend on time carry gradient.
    """

    def __init__(self, step_mode: StepMode, training: bool, with_gradient: bool) -> None:
        super().__init__(step_mode, training)
        self.with_gradient = with_gradient

    def __call__(self, call: Call) -> Structure:
        kind = call.kind
        if kind.role == layer_kinds.NEURON:
            return self.neuron(call)
        if kind.role == layer_kinds.ENCODER:
            return self.encoder(call)
        if kind.role == layer_kinds.TIME_MIXING:
            return self.mixing(call)
        if self.is_static(call):
            return self.static(call)
        if self.normalizes(call):
            return self.normalization(call)
        if self.masks(call):
            return self.mask(call)
        if self.draws(call):
            return self.random(call)
        return self.operation(call)

    # What a training method may override:

    def evaluate(self, function: Callable[..., Any], *args: Any) -> Any:
        """Evaluates `function(*args)`, which computes tensors of steps."""
        return function(*args)

    def neuron_pass(self, neuron: keras.layers.Layer) -> NeuronPass:
        """The `NeuronPass` of a neuron layer."""
        return NeuronPass(neuron.cell_in_time(self.training), neuron.compute_dtype, self.with_gradient)

    def mixed(self, key: str, mixing_pass: NeuronPass, signal: Signal) -> Tensor:
        """The outputs of a layer that mixes time steps, see `StepMode.mix`."""
        return self.step_mode.mix(key, mixing_pass, signal)

    def remember_statistics(self, call: Call, inputs: Tensor, mean: Tensor, variance: Tensor, mask: Tensor | None) -> None:
        """Called with the input of a normalisation, the statistics that it used, and the Keras mask of its input, or `None`."""

    def remember(self, call: Call, outputs: Structure) -> Structure:
        """Called with the outputs of any other operation on steps; returns them or their replacement."""
        return outputs

    def regularize(self, call: Call, outputs: Structure) -> None:
        """Called with the outputs of a call, for activity regularisation."""
        self.step_mode.regularize(call, outputs, 1.0 / self.step_mode.calls_per_run, each_step=True)

    def add_loss(self, call: Call, loss: Tensor, t: int | Tensor | None = None) -> None:
        self.step_mode.store_loss(call, loss, each_step=not self.is_static(call))

    # Each kind of operation:

    def neuron(self, call: Call) -> Signal:
        current, neuron_pass = only_signal(call), self.neuron_pass(call.operation)
        spikes = self.evaluate(self.step_mode.through_time, call.key, neuron_pass, current)
        self.regularize(call, spikes)
        return Signal(keras_internals.put_mask(spikes, self.step_mode.mask(current)))

    def mixing(self, call: Call) -> Signal:
        """Runs a layer that mixes time steps: its output changes, even if its input is the same at every step."""
        signal, layer = only_signal(call), call.operation
        mixing_pass = MixingPass(layer.in_time(self.training), layer.compute_dtype, self.with_gradient)
        outputs = self.evaluate(self.mixed, call.key, mixing_pass, signal)
        return self._outputs(call, keras_internals.put_mask(outputs, self.step_mode.mask(signal)))

    def encoder(self, call: Call) -> Signal:
        encoder, inputs = call.operation, self.encoded(call)
        timesteps = self.step_mode.timesteps
        spikes = self.evaluate(self.step_mode.each, lambda t: encoder.spikes(inputs, t, timesteps))
        return Signal(self.remember(call, spikes))

    def encoded(self, call: Call) -> Tensor:
        """The input tensor of an encoder; raises ValueError if it already depends on time."""
        signal = only_signal(call)
        if not signal.static:
            raise ValueError(
                f"Encoder {call.operation.name!r} must be given an input without time. Received: an input with a time axis, "
                "or one that comes after neurons. Pass inputs of shape (batch, ...), or leave the encoder out."
            )
        return signal.value

    def static(self, call: Call) -> Structure:
        """Runs an operation whose inputs are the same at every step once, with gradient."""
        constants = self.step_mode.constants
        if call.key not in constants:
            if self.normalizes(call):
                # Updates the moving averages as often as calls on steps would.
                inputs, mask = self._normalized(call, lambda signal: signal.value)
                normalize, weights = self._normalize(call), self.step_mode.weights_in_statistics(call, mask)
                outputs, mean, variance = normalize(call.operation, inputs, times=self.step_mode.calls_per_run, mask=weights)
                self._collect_moments(call, mean, variance, weights)
                keras_internals.put_mask(outputs, mask)
            else:
                outputs = self.apply(call, *with_tensors(lambda signal: signal.value, call))
            self.step_mode.regularize(call, outputs)
            constants[call.key] = tree.map_leaves(lambda output: Signal(output, static=True), outputs)
        return constants[call.key]

    def normalization(self, call: Call) -> Signal:
        inputs, mask = self._normalized(call, self.step_mode.tensor)
        weights = self.step_mode.weights_in_statistics(call, mask)
        outputs, mean, variance = self.evaluate(self._normalize(call), call.operation, inputs, 1, weights)
        self.remember_statistics(call, inputs, mean, variance, mask)
        self._collect_moments(call, mean, variance, weights)
        if call.kind.normalization.step_factors is not None:  # type: ignore[union-attr]
            outputs = self.remember(call, self.evaluate(self._times_step_factors, call, outputs))
        self.regularize(call, outputs)
        return Signal(keras_internals.put_mask(outputs, mask))

    def mask(self, call: Call) -> Signal:
        """Applies the same mask at all steps."""
        signal = only_signal(call)
        masks = self.step_mode.record.random_masks
        if call.key not in masks:
            masks[call.key] = self.apply(call, (ops.ones_like(self.step_mode.at(signal, 0)),), call.kwargs)
        mask = masks[call.key]
        outputs = self.step_mode.scale(time_axis.cast(signal.value, mask.dtype), mask)
        self.regularize(call, outputs)
        return Signal(keras_internals.put_mask(outputs, self.step_mode.mask(signal)))

    def random(self, call: Call) -> Structure:
        """Uses the same random numbers at all steps: each step starts with the generator state of the first."""
        noise = self.step_mode.record.noise
        if call.key not in noise:
            noise[call.key] = noise_of(call)
        start = noise[call.key]

        def at_step(t):
            args, kwargs = self._arguments_at(call, t)
            with drawing_from(call, start, again=not (isinstance(t, int) and t == 0)):
                return self.apply(call, args, kwargs, 1.0 / self.step_mode.timesteps, t)

        return self._outputs(call, self.evaluate(self.step_mode.each, at_step))

    def operation(self, call: Call) -> Structure:
        guard = self.guarded(call, self.step_mode.only_valid)
        args, kwargs = with_tensors(lambda signal: guard(self.step_mode.tensor(signal)), call)
        if self.takes_time(call):
            kwargs = {**kwargs, "time_step": self.step_mode.time_steps(args)}
        outputs = self.evaluate(self.apply, call, args, kwargs, 1.0 / self.step_mode.calls_per_run, self.step_mode.t)
        return self._outputs(call, tree.map_leaves(guard, outputs))

    def _arguments_at(self, call, t):
        """The `(args, kwargs)` of an operation at a step that the rule sees."""
        args, kwargs = with_tensors(lambda signal: self.step_mode.at(signal, t), call)
        return args, {**kwargs, "time_step": t} if self.takes_time(call) else kwargs

    def _normalized(self, call, tensor_of):
        """The input tensor of a normalisation, and its mask, which is in the graph or on the tensor, or `None`."""
        mask = call.kwargs.get("mask")
        inputs = tensor_of(only_signal(call, beside=mask))
        if isinstance(mask, Signal):
            mask = tensor_of(mask)
        return inputs, keras_internals.mask_of(inputs) if mask is None else mask

    @staticmethod
    def _normalize(call):
        return call.kind.normalization.normalize

    def _collect_moments(self, call, mean, variance, mask):
        if call.kind.normalization.after_steps is not None:
            self.step_mode.collect_moments(call, mean, variance, mask)

    def _times_step_factors(self, call, outputs):
        factors = ops.convert_to_tensor(call.kind.normalization.step_factors(call.operation))
        return time_axis.times_rows(outputs, time_axis.of_steps(factors, self.step_mode.time_steps((outputs,))))

    def _outputs(self, call, outputs):
        self.regularize(call, outputs)
        return tree.map_leaves(Signal, self.remember(call, outputs))


def noise_of(call):
    """The state of the random generators that a call may draw from: a structure of tensors."""
    return [ops.copy(state) for state in layer_kinds.seeds_of(call.operation)], backend.noise_state()


@contextlib.contextmanager
def drawing_from(call, state, again):
    """A context in which a call draws the numbers that follow a state returned by `noise_of`.

    Args:
        call: `Call`.
        state: The state.
        again: Boolean, whether it has drawn them before. Later calls then draw as if it had not done so again.
    """
    seeds, rest = state
    for variable, seed in zip(layer_kinds.seeds_of(call.operation), seeds, strict=True):
        variable.assign(seed)
    if again:
        with backend.repeated_noise(rest):
            yield
    else:
        backend.set_noise_state(rest)
        yield
