"""Compiled functions of `fit`, `evaluate` and `predict`, one for each combination of
settings."""

import functools
import threading

from keras_ratesnn._core import keras_internals
from keras_ratesnn._core.backend import engine
from keras_ratesnn._model.data_checks import check_first_batch

FUNCTIONS_KEPT = 64
"""The number of settings whose function is remembered. Each epoch may have another
number of time steps."""


class CompiledFunction:
    """Replaces a compiled function of Keras: compiles and caches one function for each
    combination of settings.

    A call uses the function for the current settings of the model and the ranks of its
    data. Returning to one of the latest settings does not recompile.

    Args:
        model: A model of a class with `Trainer`.
        purpose: `"train"`, `"test"` or `"predict"`.
    """

    def __init__(self, model, purpose):
        self._model = model
        self._purpose = purpose
        self._shardings = keras_internals.state_shardings(model)
        self._function = functools.lru_cache(FUNCTIONS_KEPT)(self._made)
        self._lock = threading.Lock()

    def __call__(self, *state_and_data):
        *state, data = state_and_data
        try:
            if self._purpose != "predict" and self._model._has_unknown_labels:
                self._model._has_unknown_labels = False
                data = check_first_batch(self._model, data, self._purpose == "train")
            if self._purpose == "train" and self._model._silent_layers is not None:
                data = self._model._silent_layers.see(self._model, data)
            if self._purpose != "predict":
                data = keras_internals.build_metrics(self._model, data)
            ranks, data = engine.ranks_of_batch(data)
            with self._lock:
                function = self._function(self._model._settings(), ranks)
            with (
                keras_internals.in_steps(),
                keras_internals.collected(self._model),
            ):
                results = function(*state, data)
        except BaseException:
            keras_internals.reattach_state(self._model, self._purpose, state)
            raise
        return (
            results
            if self._purpose == "predict"
            else keras_internals.read_together(results)
        )

    def _made(self, settings, ranks):
        """A function for these settings and ranks, whose trace has them."""
        stand_in = keras_internals.StandIn(self._model, self._shardings)
        return keras_internals.make_function(stand_in, self._purpose)
