"""Checks of a model and its data before Keras trains or runs it: errors, then
warnings."""

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any

from keras_ratesnn import _graph
from keras_ratesnn._core import keras_internals
from keras_ratesnn._model import data_checks, quantization, replicas
from keras_ratesnn._model.input_checks import are_tensors
from keras_ratesnn._model.trainer import Trainer
from keras_ratesnn._model.weight_checks import check_finite

_signature = functools.cache(inspect.signature)


def preflight(model, method, x, args, kwargs, least=1):
    """Checks a model and its data before Keras does, first for errors, then for what is
    a warning.

    Args:
        model: A `SpikingModel`.
        method: The method of Keras' that will run.
        x: Its argument `x`, of at least as many samples as `least`.
        args: Its other arguments.
        kwargs: Likewise, those with names.
        least: Integer. Defaults to `1`.

    Returns:
        `inspect.BoundArguments` of the method.
    """
    name = method.__name__
    if "mask" in kwargs:
        raise TypeError(
            f"`{name}` has no argument `mask`, as in Keras. Say what is padding by "
            "SpikingModel(network, timesteps, mask_value=...), or by a "
            "keras.layers.Masking before the model. In your own loops call model(x, "
            "mask=mask)."
        )
    if name == "fit":
        # On JAX an error in a training step leaves a model without weights.
        quantization.check_trainable(model)
        _graph.check_trainable(_graph.as_graph(model.network))
        check_finite(model.variables)
    trains = name in ("fit", "train_on_batch")
    if trains:
        model.gradient.check_timesteps(model.timesteps)
    asked = _signature(method).bind(model, x, *args, **kwargs)
    given = asked.arguments
    y = given.get("y")
    model._checked_graph()
    model._check_steps(model.step_mode)
    model._check_data(x, least)
    data_checks.check_labels(model, y, given.get("sample_weight"))
    if isinstance(given.get("validation_data"), tuple):
        data_checks.check_labels(model, *given["validation_data"][1:])
    if name == "fit":
        replicas.begin_training(given)
        warn_once(model, data_checks.problem_of_nan, model, x, y)
    warn_once(model, data_checks.problem_of_scale, model, x)
    if trains and are_tensors(x):
        model.remember_time(x)
    model._has_unknown_labels = takes_usual_batches(
        model, name
    ) and not data_checks.are_arrays(y)
    return asked


def warn_once(model, find, *arguments, stacklevel=4):
    """Warns of the problem that a function finds, a text or `None`, unless the model
    has had a warning from this function before."""
    if find not in model._told and (problem := find(*arguments)):
        model._told.add(find)
        warnings.warn(problem, stacklevel=stacklevel)


def run_by_keras(method, asked):
    """Runs a method of Keras' with arguments of `preflight`."""
    model = asked.arguments["self"]
    with keras_internals.plain_build_errors(), keras_internals.whole_batches(model):
        return method(*asked.args, **asked.kwargs)


def with_preflight(method: Callable[..., Any], least: int = 1) -> Callable[..., Any]:
    """A method of Keras' that runs after `preflight`."""

    @functools.wraps(method)
    def checked(self, x=None, *args, **kwargs):
        return run_by_keras(method, preflight(self, method, x, args, kwargs, least))

    return checked


def takes_usual_batches(model, method):
    """Whether a method runs the usual steps, on batches as Keras documents them; a step
    that a subclass overrides may take others."""
    step = {"fit": "train_step", "evaluate": "test_step"}.get(method)
    return step is not None and getattr(type(model), step) is getattr(Trainer, step)
