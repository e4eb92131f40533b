"""The compiled functions of a model whose settings may change at any time, while `fit` runs too."""

import threading

from keras_ratesnn._core import backend, keras_internals


class CompiledFunction:
    """Stands where Keras keeps a compiled function: makes one for each way in which the model is run, and keeps it.

    A call takes the function for the model's settings and the ranks of its data as they are then. What `fit` is running is
    never thrown away under it, and a setting that comes back is not compiled a second time.

    Args:
        model: A Keras model.
        purpose: `"train"`, `"test"` or `"predict"`.
        settings: Function without arguments: all that a trace of the model depends on and that may change, hashable.
    """

    def __init__(self, model, purpose, settings):
        self._model = model
        self._purpose = purpose
        self._settings = settings
        self._shardings = keras_internals.state_shardings(model)
        self._functions = {}
        self._lock = threading.Lock()

    def __call__(self, *state_and_data):
        *state, data = state_and_data
        ranks, data = backend.ranks_of_batch(data)
        return self._function((self._settings(), ranks))(*state, data)

    def _function(self, key):
        with self._lock:
            if key not in self._functions:
                stand_in = keras_internals.StandIn(self._model, self._shardings)
                self._functions[key] = keras_internals.make_function(stand_in, self._purpose)
            return self._functions[key]
