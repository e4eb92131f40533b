"""How models train and predict whose settings may change at any time, even during
`fit`."""

import inspect
from collections.abc import Callable
from typing import Any

import keras

from keras_ratesnn._core import checks, keras_internals
from keras_ratesnn._core.annotations import Config
from keras_ratesnn._core.backend import engine
from keras_ratesnn._model.compiled_functions import CompiledFunction
from keras_ratesnn._model.undifferentiated import undifferentiated


class Trainer:
    """A mixin for Keras models, the counterpart of Keras' own `Trainer`.

    `fit`, `evaluate` and `predict` use functions that are compiled for the current
    settings. Where a backend records calls, the `jit_compile` of `compile` says what
    becomes of these; Keras compiles nothing. The outputs of test and prediction steps
    are not differentiated.
    """

    train_function: Any
    test_function: Any
    predict_function: Any
    optimizer: Any
    trainable_variables: list[Any]
    _settings: Callable[[], tuple[Any, ...]]
    """All mutable settings that a trace depends on, hashable. Called before each step,
    outside of traces."""
    _asked_jit_compile: bool | str = "auto"
    _silent_layers: Any = None
    _has_unknown_labels = False

    def compile(self, *args: Any, **kwargs: Any) -> None:
        asked = inspect.signature(super().compile).bind(*args, **kwargs)  # type: ignore[misc]
        asked.apply_defaults()
        # Keras' `Distiller` names few of its arguments.
        given = asked.arguments.get("kwargs", asked.arguments)
        jit_compile = checks.jit_compile(given.get("jit_compile", "auto"))
        self._asked_jit_compile = False if given.get("run_eagerly") else jit_compile
        if not engine.KERAS_COMPILES:
            given["jit_compile"] = False
        super().compile(*asked.args, **asked.kwargs)  # type: ignore[misc]

    def get_compile_config(self) -> Config | None:
        config = keras_internals.portable(super().get_compile_config())  # type: ignore[misc]
        # Keras stores what "auto" means on this backend; on another backend it may mean
        # something else.
        return config and {**config, "jit_compile": self._asked_jit_compile}

    def compile_from_config(self, config: Config) -> None:
        known = keras_internals.without_later_arguments(config)
        self.compile(**keras.saving.deserialize_keras_object(known))
        self.optimizer.build(self.trainable_variables)

    def make_train_function(self, force: bool = False) -> None:
        if force or self.train_function is None:
            self.train_function = CompiledFunction(self, "train")

    def make_test_function(self, force: bool = False) -> None:
        if force or self.test_function is None:
            self.test_function = CompiledFunction(self, "test")

    def make_predict_function(self, force: bool = False) -> None:
        if force or self.predict_function is None:
            self.predict_function = CompiledFunction(self, "predict")

    def train_step(self, *state_and_data: Any) -> Any:
        return super().train_step(*map(keras_internals.on_device, state_and_data))  # type: ignore[misc]

    def test_step(self, *state_and_data: Any) -> Any:
        with undifferentiated():
            return super().test_step(*map(keras_internals.on_device, state_and_data))  # type: ignore[misc]

    def predict_step(self, *state_and_data: Any) -> Any:
        with undifferentiated():
            return super().predict_step(*state_and_data)  # type: ignore[misc]
