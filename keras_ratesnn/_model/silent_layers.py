"""A warning after the first epoch of `fit` if there is a layer whose neurons do not spike at all."""

import contextlib
import warnings

import keras
import numpy as np
from keras import ops

from keras_ratesnn._core import backend, keras_internals
from keras_ratesnn._model import replicas

ENOUGH = 32
"""Samples: so many are looked at, of as few batches as have them."""


class SilentLayers(keras.callbacks.Callback):
    """Looks after an epoch whether each layer spikes for the first samples that a model was trained with.

    The layers are looked at as in training, with the statistics of the batch, since moving averages settle later; nothing of
    the model changes. Processes that train together look at their samples together, and the first one warns. In a strategy of
    `tf.distribute` the host sees no batches: arrays are looked at, whose first samples are for training, too, but no data sets,
    which another pass would shuffle otherwise.

    Args:
        spiking: Function `(x, timesteps)` that returns the names of the layers of neurons that a model runs for a batch, and
            an array that says which of them spike.
        x: The argument of `fit`.
    """

    def __init__(self, spiking, x):
        super().__init__()
        self._spiking = spiking
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
            What replaces `data`.
        """
        if self._missing <= 0:
            return data
        batches, data = backend.batches_of_step(data, model.steps_per_execution)
        for batch in batches:
            x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
            self._keep(x, model.timesteps)
        return data

    def _keep(self, x, timesteps):
        first = keras.tree.map_structure(lambda leaf: None if leaf is None else leaf[: self._missing], x)
        self._missing -= _samples_in(first)
        self._seen.append((first, timesteps))

    @contextlib.contextmanager
    def among(self, callbacks):
        """A context with the callbacks for `fit`, of which this is the last.

        Args:
            callbacks: As for `fit`.
        """
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            yield [*keras.tree.flatten(callbacks or []), self]
            return
        callbacks.callbacks.append(self)
        try:
            yield callbacks
        finally:
            callbacks.callbacks.remove(self)

    def on_epoch_end(self, epoch, logs=None):
        if self._has_looked:
            return
        arrays = all(isinstance(leaf, np.ndarray) or ops.is_tensor(leaf) for leaf in keras.tree.flatten(self._x))
        if not self._seen and self._missing > 0 and arrays:
            self._keep(self._x, self.model.timesteps)
        # Processes may have seen other numbers of batches, and wait for each other in each.
        seen = self._seen[: replicas.of_all(len(self._seen)).min()]
        self._has_looked, self._seen, self._missing, self._x = True, [], 0, None
        silent = None
        for x, timesteps in seen:
            # Once all have spiked, other samples say no more.
            if silent != set():
                names, spike = self._spiking(x, timesteps)
                spike = replicas.of_all(spike).any(axis=0)
                of_batch = set(names) - {name for name, spikes in zip(names, spike, strict=True) if spikes}
                silent = of_batch if silent is None else silent & of_batch
        if silent:
            samples = replicas.of_all(sum(_samples_in(x) for x, _ in seen)).sum()
            if not replicas.is_first():
                return
            warnings.warn(
                f"No neuron of {', '.join(map(repr, sorted(silent)))} spikes after the first epoch of `fit`, for {samples} "
                "samples of the training data: the weights after such a layer have a gradient of zero, and so have mostly "
                "those before it. Put a BatchNormalization before the neurons, or lower their threshold or the learning rate. "
                "keras_ratesnn.describe(model, x) shows the firing rates of all layers.",
                stacklevel=2,
            )


def _samples_in(x):
    return keras_internals.first_tensor(x).shape[0]
