"""Spiking models that keep the class of the model from which they were made, with all
that it overrides.

A task is a Functional or Sequential model whose class does more than its graph: another
`compile`, loss, step or decoding. Its spiking model is one object of a new class, made
for each class of task:

    SpikingTask, <the task's classes>, SpikingModel, <Functional without its graph>,
    keras.Model

So a method of the task runs as it is, and its `super()` is a `SpikingModel`: `self(x)`,
`self.optimizer`, `fit` and the state on JAX are those of one ordinary Keras model,
whatever the backend. What belongs to an object and not to a class, the attributes, is
translated from the task to the spiking network by `Counterparts`. The task's `__init__`
does not run. The config of a saved model holds the network, and the class and config of
the task, from which the attributes are made again. `SpikingTask` comes first to say
what is saved: also the arguments of the task's own `compile`, so that training resumes.
"""

import functools
import importlib.util
from typing import TYPE_CHECKING, Any, Self

import keras

from keras_ratesnn._core import keras_internals, optional_packages, registry, tree
from keras_ratesnn._core.annotations import Config, StepModeName, Structure
from keras_ratesnn.conversion._tasks.counterparts import Counterparts, names_of
from keras_ratesnn.gradients import GradientMethod
from keras_ratesnn.spiking_model import SpikingModel

_MAKES = {"__call__", "get_config", "from_config", "layers"}
"""Methods that a class overrides to be made, saved and listed. A class that overrides
nothing else is only a way to build a graph."""

_OURS = {
    "compute_output_shape",
    "compute_output_spec",
    "make_predict_function",
    "make_test_function",
    "make_train_function",
    "stateless_call",
    "symbolic_call",
}
"""Methods that a task cannot override: the call of a `SpikingModel` is its network over
time, and its functions follow its settings."""


def spiking_model(
    model: keras.Model,
    network: keras.Model,
    timesteps: int,
    gradient: str | GradientMethod | Config,
    step_mode: StepModeName,
) -> SpikingModel:
    """The `SpikingModel` of a network that was made from a model; a task if the model
    is one.

    Args:
        model: A Functional or Sequential model.
        network: The network with neurons that was made from it.
        timesteps: As in `SpikingModel`.
        gradient: As in `SpikingModel`.
        step_mode: As in `SpikingModel`.

    Raises:
        TypeError: If the class of the model does what a spiking model cannot do.
    """
    kind: Any = type(model)
    if not _is_task(kind):
        return SpikingModel(
            network, timesteps, gradient, step_mode, dtype=model.dtype_policy
        )
    names = names_of(model)
    saved = _Saved(kind, lambda: keras.saving.serialize_keras_object(model), names)
    return _class_of(kind)(
        network,
        timesteps,
        gradient,
        step_mode,
        task=model,
        saved=saved,
        names=names,
        dtype=model.dtype_policy,
    )


def with_network(
    model: SpikingModel, network: keras.Model, **changes: Any
) -> SpikingModel:
    """A `SpikingModel` like another, not compiled, with a network that was made from
    its network; a task if it is one.

    Args:
        model: A `SpikingModel`.
        network: A network with neurons. Layers may be gone.
        **changes: Other arguments of `SpikingModel` that change.
    """
    config = {**model.get_config(), "network": network, **changes}
    if not isinstance(model, SpikingTask):
        return type(model)(**config)
    new = type(model).from_config(
        {**config, "network": keras.saving.serialize_keras_object(network)}
    )
    new.network.set_weights(network.get_weights())
    return new


def _is_task(cls):
    """Whether a class has methods or properties besides those with which a model is
    made."""
    own = (
        item
        for owner in keras_internals.own_classes(cls)
        for item in vars(owner).items()
    )
    return any(
        isinstance(value, property)
        or (callable(value) and not isinstance(value, (type, staticmethod)))
        for name, value in own
        if name not in _MAKES and not name.startswith("__")
    )


@functools.cache
def _class_of(cls):
    """The class of the spiking models of a class of tasks."""
    overridden = sorted(name for name in _OURS if _overrides(cls, name))
    if overridden:
        raise TypeError(
            "`model` must not override what a SpikingModel does for it. Received: "
            f"class {cls.__name__}, which overrides {overridden}. What it may "
            "override: compile, train_step, test_step, predict_step, compute_loss, "
            "compute_metrics, fit, evaluate, predict, and what Keras does not have."
        )
    graph_class = keras_internals.graph_class(cls)
    _check_names(
        cls,
        [
            name
            for name in dir(SpikingModel)
            if not hasattr(graph_class, name) and _overrides(cls, name)
        ],
    )
    base = keras_internals.without_graph(graph_class)
    namespace = {
        "__module__": SpikingTask.__module__,
        "__doc__": cls.__doc__,
        "task_class": cls,
    }
    made = type(
        f"Spiking{cls.__name__}", (SpikingTask, cls, SpikingModel, base), namespace
    )
    # One name for all: a saved model says itself which task it is.
    return keras.saving.register_keras_serializable(
        registry.PACKAGE, SpikingTask.__name__
    )(made)


def _check_names(cls, taken):
    if taken:
        raise TypeError(
            "`model` must not have attributes that mean something else in a "
            f"SpikingModel. Received: {cls.__name__} with {sorted(taken)}. Rename them."
        )


if TYPE_CHECKING:
    _Model = SpikingModel
else:
    _Model = object


@registry.register
class SpikingTask(_Model):
    """The first base class of the spiking model of a task.

    Args:
        *args: As in `SpikingModel`.
        task: The model from which the network was made.
        saved: `_Saved`.
        names: `names_of` the model from which the network was made, `task` or an equal
            one.
        **kwargs: As in `SpikingModel`.

    Raises:
        TypeError: If the task has attributes that a `SpikingModel` has.
    """

    task_class: type[keras.Model]
    _is_spiking_model = False

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        return keras.Model.__new__(cls)

    def __init__(
        self,
        *args: Any,
        task: keras.Model,
        saved: "_Saved",
        names: list[Any],
        **kwargs: Any,
    ) -> None:
        SpikingModel.__init__(self, *args, **kwargs)
        self._is_spiking_model = True
        attributes = keras_internals.attributes_of(task)
        _check_names(
            type(task),
            [
                name
                for name in attributes
                if name in vars(self) or hasattr(SpikingModel, name)
            ],
        )
        counterparts = Counterparts(task, self.network, names)
        for name, value in attributes.items():
            setattr(self, name, counterparts.of(value, self))
        self.supports_jit = task.supports_jit
        self._asked = _Asked((), {})
        self._saved = saved
        saved.note_what_may_change(self)

    def __setattr__(self, name: str, value: Any) -> None:
        if self._is_spiking_model:
            super().__setattr__(name, value)
        else:
            # A task may hide from Keras what it is given before it has a graph, here
            # the network.
            SpikingModel.__setattr__(self, name, value)

    @property
    def task(self) -> Self:
        """The model itself, which is an instance of the class of its task."""
        return self

    @property
    def input(self) -> Structure:
        """The symbolic inputs of the network, in their structure."""
        return keras_internals.inputs_structure(self.network)

    def __dir__(self) -> list[str]:
        # Keras saves the layers that it finds in the attributes, in this order: those
        # of the network belong to the network.
        return [
            name
            for name in super().__dir__()
            if name not in (keras_internals.LAYERS_OF_A_GRAPH, "task")
        ]

    def _check_data(self, x: Any, least: int) -> None:
        # The steps of a task may take inputs and labels out of a dict.
        if not isinstance(x, dict) or set(x) == {tensor.name for tensor in self.inputs}:
            super()._check_data(x, least)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        super().compile(*args, **kwargs)
        self._asked = _Asked(args, kwargs)

    def get_compile_config(self) -> Config | None:
        if not _overrides(self.task_class, "compile") or _overrides(
            self.task_class, "get_compile_config"
        ):
            return super().get_compile_config()
        return (
            keras_internals.portable(
                keras.saving.serialize_keras_object(self._asked.config(self))
            )
            if self.compiled
            else {}
        )

    def compile_from_config(self, config: Config) -> None:
        if not _overrides(self.task_class, "compile") or _overrides(
            self.task_class, "compile_from_config"
        ):
            super().compile_from_config(config)
            return
        known = keras_internals.without_later_arguments(config)
        asked = keras.saving.deserialize_keras_object(known)
        self.compile(*asked["args"], **asked["kwargs"])
        self.optimizer.build(self.trainable_variables)

    def get_config(self) -> Config:
        return {**SpikingModel.get_config(self), **self._saved.config(self)}

    @classmethod
    def from_config(
        cls, config: Config, custom_objects: dict[str, Any] | None = None
    ) -> Self:
        config = keras_internals.without_later_arguments(config)
        saved, names = config.pop("task"), config.pop("names")
        _check_installed(saved["module"].split(".")[0])
        load = functools.partial(
            keras.saving.deserialize_keras_object, custom_objects=custom_objects
        )
        network, task = load(config.pop("network")), load(saved)
        kind: Any = type(task)
        return _class_of(kind)(
            network,
            **config,
            task=task,
            saved=_Saved(kind, lambda: saved, names),
            names=names,
        )


def _check_installed(package):
    extra = _EXTRAS.get(package)
    if extra is not None and importlib.util.find_spec(package) is None:
        raise ImportError(
            f"The saved model is a task of {package}, which is not installed. The "
            f"extra {extra!r} installs it: {optional_packages.how_to_install(extra)}."
        )


_EXTRAS = {"keras_cv": "cv"}
"""The extras of this package that install others, by the names of their modules."""


def _overrides(cls, name):
    return any(name in vars(own) for own in keras_internals.own_classes(cls))


class _Asked:
    """The arguments of `compile`; Keras does not look for layers and metrics in an
    object like this."""

    def __init__(self, args, kwargs):
        self._args, self._kwargs = args, kwargs

    def config(self, model):
        """The arguments with which a model was compiled, not yet serialized. The
        optimizer is as it is now."""
        now = {"optimizer": model.optimizer} if "optimizer" in self._kwargs else {}
        return {"args": list(self._args), "kwargs": {**self._kwargs, **now}}


class _Saved:
    """The saved parts of a task: its class and config, and the names of its operations.

    Args:
        cls: The class of the task.
        serialized: Function that returns the serialized task.
        names: `names_of` the model from which the network was made.
    """

    def __init__(self, cls, serialized, names):
        self._class_name = cls.__name__
        self._names = names
        self._error = None
        self._may_change = set()
        try:
            self._task = _without_shared_ids(serialized())
            # The spiking model has a compile config of its own.
            self._task.pop("compile_config", None)
        # Whatever a `get_config` raises matters only when the model is saved.
        except Exception as error:
            self._error = error

    def note_what_may_change(self, spiking):
        """Notes the entries of the config that are the same for the spiking model: not
        those about layers that changed."""
        if self._error is None:
            now, made = _config_of(spiking), self._task["config"]
            self._may_change = {
                key for key in now if key in made and now[key] == made[key]
            }

    def config(self, spiking):
        """The part of the config of a spiking model about its task, with what has
        changed since the task was made."""
        if self._error is not None:
            raise ValueError(
                f"The model cannot be saved, because {self._class_name} cannot be: "
                f"{type(self._error).__name__}: {self._error} Give the class a "
                "`get_config` that returns the arguments of its constructor."
            ) from self._error
        now = _config_of(spiking)
        changed = {key: now[key] for key in self._may_change if key in now}
        return {
            "task": {**self._task, "config": {**self._task["config"], **changed}},
            "names": self._names,
        }


def _config_of(spiking):
    """The serialized entries of what the task's own `get_config` returns for its
    spiking model; none if it has no own one."""
    cls = spiking.task_class
    if not _overrides(cls, "get_config"):
        return {}
    try:
        config = cls.get_config(spiking)
    # It may ask a layer that has become neurons, or a graph, for an attribute that is
    # gone.
    except AttributeError:
        return {}
    return {
        key: _without_shared_ids(keras.saving.serialize_keras_object(value))
        for key, value in config.items()
    }


def _without_shared_ids(config):
    """A saved config without the ids of objects that occur twice in a file: this one
    may become part of another file."""
    return tree.map_dicts(
        lambda part: {
            key: value for key, value in part.items() if key != "shared_object_id"
        },
        config,
    )
