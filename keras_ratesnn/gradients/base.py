"""The contract that a training method fills in.

A `GradientMethod` says how a network is trained through time. For each call of the model it makes a `Rule`; the walk
through the network's graph (`keras_ratesnn.graph.walk`) hands every operation to the rule's method for its kind:
`neuron`, `batch_normalization`, `dropout`, `affine` or `other`. What flows between operations is a signal, a tensor over
time in whatever form the rule likes: `begin` makes it from an input of the model, `mean` and `sequence` read it at the
outputs.
"""

import keras
from keras import ops

from keras_ratesnn import time_axis


class GradientMethod:
    """How the gradient of a spiking network is found: the base class of `Rate` and `BPTT` and of methods of your own.

    A subclass implements `multi_step`, and `get_config` if its constructor has arguments. It is registered with
    `keras.saving.register_keras_serializable` for models to be saved with it.
    """

    trains_sequences = True
    """Whether a loss on every step's output (`return_sequences=True`) can be trained, not only one on the time mean."""

    def multi_step(self, timesteps, training):
        """The rule for one call of the model, in which a layer sees all time steps at once.

        Args:
            timesteps: Integer T.
            training: Boolean, whether layers behave as in training.

        Returns:
            A `Rule`.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `multi_step(timesteps, training)`.")

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __repr__(self):
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


class Signal:
    """A tensor over time.

    Args:
        steps: Tensor of all steps, folded to `(batch * T, ...)`; or `(batch, ...)` if it is the same at every step.
        static: Boolean, whether it is the same at every step: as long as a signal is, its layers run once, not T times.
    """

    def __init__(self, steps, static):
        self.steps = steps
        self.static = static

    def folded(self, timesteps):
        """All steps, `(batch * T, ...)`."""
        return time_axis.repeat(self.steps, timesteps) if self.static else self.steps


class Rule:
    """What becomes of each kind of operation in one call of the model.

    A rule's methods for operations take `(operation, args, kwargs)`, the arguments of the call in the graph with signals
    in the place of tensors, and return signals in the structure of the operation's outputs.

    Args:
        timesteps: Integer T.
        training: Boolean, whether layers behave as in training.
    """

    def __init__(self, timesteps, training):
        self.timesteps = timesteps
        self.training = training

    def begin(self, inputs, has_time):
        """The signal of an input of the model.

        Args:
            inputs: Tensor, `(batch, T, ...)` if `has_time`, else `(batch, ...)`.
            has_time: Boolean.
        """
        raise NotImplementedError

    def mean(self, signal):
        """The time mean of a signal, `(batch, ...)`."""
        raise NotImplementedError

    def sequence(self, signal):
        """All steps of a signal, `(batch, T, ...)`."""
        return time_axis.unfold(signal.folded(self.timesteps), self.timesteps)

    def neuron(self, operation, args, kwargs):
        raise NotImplementedError

    def batch_normalization(self, operation, args, kwargs):
        return self.affine(operation, args, kwargs)

    def dropout(self, operation, args, kwargs):
        raise NotImplementedError

    def affine(self, operation, args, kwargs):
        return self.other(operation, args, kwargs)

    def other(self, operation, args, kwargs):
        raise NotImplementedError


def signals_in(args, kwargs):
    """All signals among an operation's arguments."""
    return [leaf for leaf in keras.tree.flatten((args, kwargs)) if isinstance(leaf, Signal)]


def only_signal(operation, args, kwargs):
    """The one signal among the arguments of an operation that can have no other, say a mask."""
    signals = signals_in(args, kwargs)
    if len(signals) != 1:
        raise ValueError(
            f"Layer {operation.name!r} of type {type(operation).__name__} takes one tensor of the network in a SpikingModel. "
            f"Received: {len(signals)}. Call it on its input alone, without a mask."
        )
    return signals[0]


def map_signals(function, args, kwargs):
    """An operation's arguments with `function(signal)` in the place of every signal."""
    return keras.tree.map_structure(lambda leaf: function(leaf) if isinstance(leaf, Signal) else leaf, (args, kwargs))


def run_cell(cell, current, timesteps):
    """Runs a neuron cell through time.

    Args:
        cell: A `NeuronCell`.
        current: `Signal`, the input current of every step.
        timesteps: Integer T.

    Yields:
        `(membrane, spikes)` of each step, oldest first. A membrane that is not finite makes the spikes of the last step
        NaN: a comparison with the threshold would turn NaN into silence, and a broken network would train on unseen.
    """
    at_step = _step_reader(current, timesteps)
    state = cell.initial_state(at_step(0))
    for t in range(timesteps):
        membrane, spikes, state = cell.step(at_step(t), state)
        if t == timesteps - 1:
            spikes = spikes + 0.0 * ops.stop_gradient(membrane)
        yield membrane, spikes


def _step_reader(signal, timesteps):
    if signal.static:
        return lambda t: signal.steps
    by_step = time_axis.unfold(signal.steps, timesteps)
    return lambda t: by_step[:, t]


def dropout_mask(layer, like, kwargs):
    """The mask (0 or a scale) by which a dropout layer multiplies its input, drawn once for all time steps.

    Args:
        layer: A dropout layer.
        like: Tensor `(batch, ...)` of the shape of its input at one step.
        kwargs: Dict, the keyword arguments of the layer's call.
    """
    return layer(ops.ones_like(like), **kwargs)


def add_activity_loss(layer, outputs):
    """Adds a layer's activity regularisation for `outputs`, divided by their number of rows as Keras does."""
    if layer.activity_regularizer is not None:
        rows = ops.cast(ops.shape(outputs)[0], outputs.dtype)
        layer.add_loss(layer.activity_regularizer(outputs) / rows)
