"""How models are compiled whose settings may change at any time, even during `fit`."""

import collections
import inspect
import threading
from typing import Any

import keras

from keras_ratesnn._core import backend, checks, keras_internals
from keras_ratesnn._core.annotations import Config
from keras_ratesnn._model.data_checks import check_first_batch
from keras_ratesnn._model.silent_layers import SilentLayers

FUNCTIONS_KEPT = 64
"""The number of settings whose function is remembered. Each epoch may have another
number of time steps."""


class CompilesOncePerSettings:
    """A mixin for Keras models whose functions depend on settings: `fit`, `evaluate`
    and `predict` use the current ones.

    Where a backend records calls, the `jit_compile` of `compile` says what becomes of
    these; Keras compiles nothing.
    """

    train_function: Any
    test_function: Any
    predict_function: Any
    optimizer: Any
    trainable_variables: list[Any]
    _asked_jit_compile: bool | str = "auto"
    _silent_layers: SilentLayers | None = None
    _has_unknown_labels = False

    def compile(self, *args: Any, **kwargs: Any) -> None:
        asked = inspect.signature(super().compile).bind(*args, **kwargs)  # type: ignore[misc]
        asked.apply_defaults()
        # Keras' `Distiller` names few of its arguments.
        given = asked.arguments.get("kwargs", asked.arguments)
        jit_compile = checks.jit_compile(given.get("jit_compile", "auto"))
        self._asked_jit_compile = False if given.get("run_eagerly") else jit_compile
        if backend.RECORDS_CALLS:
            # Keras would trace Python code that the graphs of calls replace.
            given["jit_compile"] = False
        super().compile(*asked.args, **asked.kwargs)  # type: ignore[misc]

    def get_compile_config(self) -> Config | None:
        config = keras_internals.portable(super().get_compile_config())  # type: ignore[misc]
        # Keras stores what "auto" means on this backend; on another backend it may mean
        # something else.
        return config and {**config, "jit_compile": self._asked_jit_compile}

    def compile_from_config(self, config: Config) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def _settings(self) -> tuple[Any, ...]:
        """All mutable settings that a trace depends on, hashable. Called before each
        step, outside of traces."""
        raise NotImplementedError(
            f"{type(self).__name__} must implement `_settings()`."
        )

    def make_train_function(self, force: bool = False) -> None:
        if force or self.train_function is None:
            self.train_function = CompiledFunction(self, "train")

    def make_test_function(self, force: bool = False) -> None:
        if force or self.test_function is None:
            self.test_function = CompiledFunction(self, "test")

    def make_predict_function(self, force: bool = False) -> None:
        if force or self.predict_function is None:
            self.predict_function = CompiledFunction(self, "predict")


class CompiledFunction:
    """Replaces a compiled function of Keras: compiles and caches one function for each
    combination of settings.

    A call uses the function for the current settings of the model and the ranks of its
    data. Returning to one of the latest settings does not recompile.

    Args:
        model: A model of a class with `CompilesOncePerSettings`.
        purpose: `"train"`, `"test"` or `"predict"`.
    """

    def __init__(self, model, purpose):
        self._model = model
        self._purpose = purpose
        self._shardings = keras_internals.state_shardings(model)
        self._functions = collections.OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, *state_and_data):
        *state, data = state_and_data
        try:
            if self._purpose != "predict" and self._model._has_unknown_labels:
                self._model._has_unknown_labels = False
                data = check_first_batch(self._model, data, self._purpose == "train")
            if self._purpose == "train" and self._model._silent_layers is not None:
                data = self._model._silent_layers.see(self._model, data)
            ranks, data = backend.ranks_of_batch(data)
            function = self._function((self._model._settings(), ranks))
            with keras_internals.in_steps():
                results = function(*state, data)
        except BaseException:
            keras_internals.reattach_state(self._model, self._purpose, state)
            raise
        return (
            results
            if self._purpose == "predict"
            else keras_internals.read_together(results)
        )

    def _function(self, key):
        with self._lock:
            if key not in self._functions:
                stand_in = keras_internals.StandIn(self._model, self._shardings)
                self._functions[key] = keras_internals.make_function(
                    stand_in, self._purpose
                )
            self._functions.move_to_end(key)
            if len(self._functions) > FUNCTIONS_KEPT:
                self._functions.popitem(last=False)
            return self._functions[key]
