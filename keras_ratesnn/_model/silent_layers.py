"""A warning after the first epoch of `fit` if there is a layer whose neurons do not
spike at all, or have currents that are too large to learn from."""

import contextlib
import itertools
import warnings

import keras
from keras import ops

from keras_ratesnn._core import keras_internals
from keras_ratesnn._core.backend import engine
from keras_ratesnn._core.contexts import replaced
from keras_ratesnn._model import replicas, silence_causes
from keras_ratesnn._model.input_checks import are_tensors
from keras_ratesnn._model.preflight import takes_usual_batches
from keras_ratesnn.gradients.observing import Observing
from keras_ratesnn.layer_kinds import NEURON

ENOUGH = 32
"""The number of samples that are looked at, from as few batches as have them."""


@contextlib.contextmanager
def warning_of_silence(model, arguments, twin):
    """A context for Keras' `fit`: the first one of a model warns of layers that do not
    spike.

    Args:
        model: A `SpikingModel`.
        arguments: Dict, those of `fit`; its callbacks are others in the context.
        twin: As in `SilentLayers`.
    """
    if warning_of_silence in model._told or not takes_usual_batches(model, "fit"):
        yield
        return
    model._told.add(warning_of_silence)
    seen = SilentLayers(twin, arguments.get("x"))
    with (
        replaced(model, "_silent_layers", seen),
        seen.among(arguments["callbacks"]) as arguments["callbacks"],
    ):
        yield


class SilentLayers(keras.callbacks.Callback):
    """Looks after an epoch whether each layer spikes for the first samples that a model
    was trained with, and whether its currents are in proportion to its thresholds.

    The layers are looked at as in training, with the statistics of the batch, since
    moving averages settle later; nothing of the model changes. Processes that train
    together look at their samples together, and the first one warns. In a strategy of
    `tf.distribute` the host sees no batches: arrays are looked at, whose first samples
    are for training, too, but no data sets, which another pass would shuffle in another
    order.

    Args:
        twin: Function `(gradient, timesteps=...)` that returns a model with the same
            network.
        x: The argument of `fit`.
    """

    def __init__(self, twin, x):
        super().__init__()
        self._twin = twin
        self._x = x
        self._seen = []
        self._missing = ENOUGH
        self._has_looked = False

    def see(self, model, data):
        """Keeps the first samples that training steps are given.

        Args:
            model: The model that is trained.
            data: What Keras passes to the function of a step.

        Returns:
            The data that replace `data`, whose iterator has been read from.
        """
        if self._missing <= 0:
            return data
        batches, data = engine.batches_of_step(data, model.steps_per_execution)
        for batch in batches:
            x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
            self._keep(x, model.timesteps)
        return data

    def _keep(self, x, timesteps):
        first = keras.tree.map_structure(
            lambda leaf: None if leaf is None else leaf[: self._missing], x
        )
        self._missing -= _samples_in(first)
        self._seen.append((first, timesteps))

    @contextlib.contextmanager
    def among(self, callbacks):
        """A context with the callbacks for `fit`, of which this is the last.

        Args:
            callbacks: What `fit_callbacks.in_order` returned.
        """
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            yield [*callbacks, self]
            return
        callbacks.callbacks.append(self)
        try:
            yield callbacks
        finally:
            callbacks.callbacks.remove(self)

    def on_epoch_end(self, epoch, logs=None):
        if self._has_looked:
            return
        if not self._seen and self._missing > 0 and are_tensors(self._x):
            self._keep(self._x, self.model.timesteps)
        # Processes may have seen other numbers of batches, and wait for each other in
        # each.
        seen = self._seen[: replicas.gathered_numbers(len(self._seen)).min()]
        self._has_looked = True
        self._seen = []
        self._missing = 0
        self._x = None
        silent = None
        broken: set[keras.layers.Layer] = set()
        overdriven: set[keras.layers.Layer] = set()
        for x, timesteps in seen:
            # Once all have spiked, other samples say no more.
            if silent != set():
                layers, activity = _activity(self._twin, x, timesteps)
                found = replicas.gathered_numbers(activity).any(axis=0)
                spike, is_broken, is_overdriven = found
                silent_in_batch = set(layers) - set(itertools.compress(layers, spike))
                silent = silent_in_batch if silent is None else silent & silent_in_batch
                broken.update(itertools.compress(layers, is_broken))
                overdriven.update(itertools.compress(layers, is_overdriven))
        overdriven -= broken
        if overdriven and replicas.is_first():
            warnings.warn(
                f"The currents of {_names(overdriven)} are more than "
                f"{silence_causes.LARGE_CURRENT} times the threshold after the first "
                "epoch of `fit`: such neurons spike at each step or never, and hardly "
                "learn. Scale the inputs, images from 0 to 255 by a "
                "keras.layers.Rescaling(1 / 255), or put a BatchNormalization before "
                "the neurons. If the inputs are small, lower the learning rate.",
                stacklevel=2,
            )
        if silent:
            samples = replicas.gathered_numbers(
                sum(_samples_in(x) for x, _ in seen)
            ).sum()
            if not replicas.is_first():
                return
            warnings.warn(
                f"No neuron of {_names(silent)} spikes after the first epoch of `fit`, "
                f"for {samples} samples of the training "
                f"data{self._reason(silent, broken, [x for x, _ in seen])} "
                "keras_ratesnn.describe(model, x) shows the firing rates of all "
                "layers.",
                stacklevel=2,
            )

    def _reason(self, silent, broken, batches):
        """The end of the sentence that names the silent layers, and what to do."""
        if silent & broken:
            origin = silence_causes.origin_of_nan(self.model, batches)
            return (
                f", and the currents of {_names(silent & broken)} are NaN or "
                f"infinite. {origin}"
            )
        normalized = silent <= silence_causes.normalized_neurons(self.model.network)
        return (
            ": the weights after such a layer have a gradient of zero, and so have "
            "mostly those before it. "
            + (
                "Lower"
                if normalized
                else "Put a BatchNormalization before neurons that have none, or lower"
            )
            + " their threshold or the learning rate."
        )


def _activity(twin, x, timesteps):
    """The layers of neurons in a training step on a batch, and an array `(3, layers)`.

    It says which of them spike, which of them have a current that is NaN or infinite,
    and which of them have currents that are too large.
    """
    layers, spike, broken, overdriven = [], [], [], []

    def observe(call, outputs):
        if call.kind.role == NEURON:
            layers.append(call.operation)
            spike.append(ops.any(ops.not_equal(outputs.value, 0)))
            currents = [signal.value for signal in call.signals]
            broken.append(silence_causes.is_broken(currents))
            overdriven.append(
                silence_causes.are_large(call.operation.cell, currents[0])
            )
        return outputs

    watched = twin(Observing(observe), timesteps=timesteps)

    def run(x, values):
        with keras_internals.Values(zip(watched.variables, values, strict=True)):
            watched(x, training=True)
        return ops.stack([ops.stack(row) for row in (spike, broken, overdriven)])

    values = [variable.value for variable in watched.variables]
    with engine.no_gradient(), engine.repeated_noise(engine.noise_state()):
        return layers, ops.convert_to_numpy(engine.traced(run)(x, values))


def _names(layers):
    return ", ".join(map(repr, sorted(layer.name for layer in layers)))


def _samples_in(x):
    return keras_internals.first_tensor(x).shape[0]
