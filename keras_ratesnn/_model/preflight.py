"""Methods for training and inference that check their inputs before Keras does."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from keras_ratesnn import _graph
from keras_ratesnn._core import keras_internals
from keras_ratesnn._model import data_checks, quantization
from keras_ratesnn._model.input_checks import are_tensors
from keras_ratesnn._model.trainer import Trainer
from keras_ratesnn._model.weight_checks import check_finite


def with_checked_inputs(
    method: Callable[..., Any], least: int = 1
) -> Callable[..., Any]:
    """A training or inference method that checks the inputs, of at least as many
    samples, before Keras does."""

    signature = inspect.signature(method)

    @functools.wraps(method)
    def checked(self, x=None, *args, **kwargs):
        refuse_mask(method.__name__, kwargs)
        self._checked_graph()
        self._check_steps(self.step_mode)
        self._check_data(x, least)
        if not self._told_of_scale:
            self._told_of_scale = data_checks.warn_of_scaled_twice(self, x)
        given = signature.bind(self, x, *args, **kwargs).arguments
        data_checks.check_labels(self, given.get("y"), given.get("sample_weight"))
        if isinstance(given.get("validation_data"), tuple):
            data_checks.check_labels(self, *given["validation_data"][1:])
        if method.__name__ in ("fit", "train_on_batch") and are_tensors(x):
            self.remember_time(x)
        self._has_unknown_labels = takes_usual_batches(
            self, method.__name__
        ) and not data_checks.are_arrays(given.get("y"))
        whole = keras_internals.whole_batches(self)
        with keras_internals.plain_build_errors(), whole:
            return method(self, x, *args, **kwargs)

    return checked


def check_trainable(model):
    """Raises an error before `fit` starts Keras, if a model cannot be trained: on JAX
    an error in a training step leaves it without weights."""
    quantization.check_trainable(model)
    _graph.check_trainable(_graph.as_graph(model.network))
    check_finite(model.variables)
    model.gradient.check_timesteps(model.timesteps)


def refuse_mask(method, kwargs):
    if "mask" in kwargs:
        raise TypeError(
            f"`{method}` has no argument `mask`, as in Keras. Say what is padding by "
            "SpikingModel(network, timesteps, mask_value=...), or by a "
            "keras.layers.Masking before the model. In your own loops call model(x, "
            "mask=mask)."
        )


def takes_usual_batches(model, method):
    """Whether a method runs steps on batches that are what Keras says; a step of its
    own may take others."""
    step = {"fit": "train_step", "evaluate": "test_step"}.get(method)
    return step is not None and getattr(type(model), step) is getattr(Trainer, step)
