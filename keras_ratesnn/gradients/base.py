"""The contract that a training method fills in.

A `GradientMethod` says how a network is trained through time. A call of the model is a `Run`: the method makes a `Rule`
and walks the network's graph with it; the walk (`keras_ratesnn._core.graph.walk`) hands every operation to the rule's method
for its kind: `neuron`, `encoder`, `batch_normalization`, `dropout`, `affine`, `parameter_free_affine` or `other`. What flows
between operations is a signal, a tensor over time in whatever form the rule likes.
"""

import contextlib
import dataclasses
from collections.abc import Callable

import keras
from keras import ops

from keras_ratesnn import layer_kinds
from keras_ratesnn._core import backend, keras_internals, time_axis, tree
from keras_ratesnn.gradients.signals import only_signal


@dataclasses.dataclass(frozen=True)
class Run:
    """One call of a `SpikingModel`.

    Args:
        walk: Function `(signals, rule) -> signals`: runs the network's graph, from its inputs to its outputs.
        inputs: List of pairs `(tensor, has_time)` in the order of the network's inputs: `(batch, T, ...)` with
            `has_time=True`, or `(batch, ...)`.
        timesteps: Integer T.
        training: Boolean, whether layers behave as in training.
        return_sequences: Boolean, whether every step's output is wanted, not the time mean.
        network: The Functional model that `walk` runs, for its variables.
    """

    walk: Callable
    inputs: list
    timesteps: int
    training: bool
    return_sequences: bool
    network: keras.Model


class GradientMethod:
    """How the gradient of a spiking network is found: the base class of `Rate` and `BPTT` and of methods of your own.

    A subclass implements `multi_step_rule` and `single_step`, and `get_config` if its constructor has arguments. It is
    registered with `keras.saving.register_keras_serializable` for models to be saved with it.
    """

    trains_sequences = True
    """Whether a loss on every step's output (`return_sequences=True`) can be trained, not only one on the time mean."""

    def multi_step(self, run):
        """The outputs of a call in which a layer sees all time steps at once.

        Args:
            run: `Run`.

        Returns:
            Tensors in the structure of the network's outputs: time means `(batch, ...)`, or all steps
            `(batch, T, ...)`.
        """
        rule = self.multi_step_rule(run.timesteps)
        outputs = run.walk([rule.begin(tensor, has_time) for tensor, has_time in run.inputs], rule)
        outputs = tree.map_leaves(rule.sequence if run.return_sequences else rule.mean, outputs)
        rule.add_losses()
        return propagate_nan(outputs, rule.final_states)

    def multi_step_rule(self, timesteps):
        """The rule for a walk in which a layer sees all time steps at once."""
        raise NotImplementedError(f"{type(self).__name__} must implement `multi_step_rule(timesteps)`.")

    def single_step(self, run):
        """The outputs of a call in which the network advances one time step at a time; otherwise as `multi_step`."""
        raise NotImplementedError(f'{type(self).__name__} must implement `single_step(run)` for step_mode="single".')

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __repr__(self):
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


class Rule:
    """What becomes of each kind of operation in a walk.

    A rule's methods for operations take `(operation, args, kwargs)`, the arguments of the call in the graph with signals
    in the place of tensors, and return signals in the structure of the operation's outputs.

    Args:
        timesteps: Integer T.
        repeated: Boolean, whether a walk calls every layer again and again on data of one shape. Defaults to `False`.

    Attributes:
        final_states: List of the states of all neurons after the last step.
        layout: Context in which the layers that can keep the order of their data in memory are called.
    """

    def __init__(self, timesteps, repeated=False):
        self.timesteps = timesteps
        self.final_states = []
        self.layout = backend.layout_kept(repeated)
        self._activity_losses = []

    def call(self, operation, args, kwargs):
        """What an operation makes of tensors."""
        with self.layout if layer_kinds.takes_any_layout(operation) else contextlib.nullcontext():
            # Keras prepares each call of a layer, which takes longer than many an operation on a GPU.
            if (
                layer_kinds.is_function_of_tensors(operation)
                and kwargs.keys() <= {"training"}
                and keras_internals.is_prepared(operation, args)
            ):
                return keras_internals.call_prepared(operation, args)
            return operation(*args, **kwargs)

    def regularize(self, operation, outputs):
        """Notes the activity regularisation of an operation that the rule runs in another way than by calling it once."""
        loss = activity_loss(operation, outputs)
        if loss is not None:
            self._activity_losses.append((operation, loss))

    def add_losses(self):
        """Adds what was noted to the layers' losses, after the last walk: a call of a layer may clear the ones before."""
        layers = {id(layer): layer for layer, _ in self._activity_losses}
        for layer in layers.values():
            layer.add_loss(sum(loss for owner, loss in self._activity_losses if owner is layer))

    def begin(self, inputs, has_time):
        """The signal of an input of the model, `(batch, T, ...)` if `has_time`, else `(batch, ...)`."""
        raise NotImplementedError

    def mean(self, signal):
        """The time mean of a signal, `(batch, ...)`."""
        raise NotImplementedError

    def sequence(self, signal):
        """All steps of a signal, `(batch, T, ...)`."""
        return time_axis.unfold(signal.folded(self.timesteps), self.timesteps)

    def neuron(self, operation, args, kwargs):
        raise NotImplementedError

    def encoder(self, operation, args, kwargs):
        raise NotImplementedError

    def batch_normalization(self, operation, args, kwargs):
        return self.affine(operation, args, kwargs)

    def dropout(self, operation, args, kwargs):
        raise NotImplementedError

    def affine(self, operation, args, kwargs):
        return self.other(operation, args, kwargs)

    def parameter_free_affine(self, operation, args, kwargs):
        return self.affine(operation, args, kwargs)

    def other(self, operation, args, kwargs):
        raise NotImplementedError


def static_input(encoder, args, kwargs):
    """The signal that an encoder encodes; ValueError if time has begun already."""
    signal = only_signal(encoder, args, kwargs)
    if not signal.static:
        raise ValueError(
            f"Encoder {encoder.name!r} must be given an input without time. Received: an input with a time axis, or one that "
            "comes after neurons. Give the model inputs of shape (batch, ...), or leave the encoder out."
        )
    return signal


def encode_all(encoder, inputs, timesteps):
    """The spikes of all steps, `(batch * T, ...)`, that an encoder makes of a tensor `(batch, ...)`."""
    return time_axis.fold(ops.stack([encoder.spikes(inputs, t, timesteps) for t in range(timesteps)], axis=1))


def propagate_nan(outputs, states):
    """The outputs of a network; NaN if any of its neurons is in a state that is NaN or infinite.

    A comparison with the threshold turns NaN into silence, and a broken network would train on unseen. A membrane stays
    broken, so that looking at it once, after the last step, finds what happened at any step.

    Args:
        outputs: Structure of tensors.
        states: List of structures of tensors.
    """
    sums = [time_axis.cast(ops.sum(x), "float32") for x in tree.flatten(states)]
    alarm = ops.stop_gradient(0.0 * sum(sums))
    return tree.map_leaves(lambda output: output + time_axis.cast(alarm, output.dtype), outputs)


def dropout_mask(layer, like, kwargs):
    """The mask (0 or a scale) by which a dropout layer multiplies its input, drawn once for all time steps.

    Args:
        layer: A dropout layer.
        like: Tensor `(batch, ...)` of the shape of its input at one step.
        kwargs: Dict, the keyword arguments of the layer's call.
    """
    return layer(ops.ones_like(like), **kwargs)


def activity_loss(layer, outputs):
    """A layer's activity regularisation for a structure of outputs, divided by their number of rows as Keras does.

    Returns:
        Scalar tensor; `None` for a layer, or any other operation, without regularizer.
    """
    if getattr(layer, "activity_regularizer", None) is None:
        return None
    outputs = tree.flatten(outputs)
    return sum(layer.activity_regularizer(output) / ops.cast(ops.shape(output)[0], output.dtype) for output in outputs)


@contextlib.contextmanager
def without_activity_loss(operation):
    """Where an operation runs more than once for one output, its activity regularisation is added by hand, once."""
    regularizer = getattr(operation, "activity_regularizer", None)
    if regularizer is None:
        yield
        return
    operation.activity_regularizer = None
    try:
        yield
    finally:
        operation.activity_regularizer = regularizer
