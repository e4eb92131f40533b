"""Classes of models with a graph: what their subclasses and users have added, and such
classes without a graph."""

import inspect

import keras

from keras_ratesnn._core.keras_internals.imported import functional

_MADE_WHEN_RUN = {
    "history",
    "stop_evaluating",
    "stop_predicting",
    "_jax_state",
    "_epoch_iterator",
    "_eval_epoch_iterator",
}
"""Attributes that `fit`, `evaluate` and `predict` give a model."""


def graph_class(cls):
    """The class of Keras from which a class of models has its graph: Functional or
    Sequential."""
    return (
        keras.Sequential if issubclass(cls, keras.Sequential) else functional.Functional
    )


def own_classes(cls):
    """The classes of a class of Functional or Sequential models that are not Keras'
    own, the most derived first: a tuple."""
    base = graph_class(cls)
    return tuple(derived for derived in cls.__mro__ if not issubclass(base, derived))


def attributes_of(model):
    """Dict of the attributes that the classes and users of a Functional or Sequential
    model have given it."""
    inputs = keras.Input((1,))
    base = graph_class(type(model))
    plain = base([inputs]) if base is keras.Sequential else base(inputs, inputs)
    plain.compile("sgd", "mse")
    known = {*_names_of_attributes(plain), *_MADE_WHEN_RUN}
    return {
        name: getattr(model, name)
        for name in _names_of_attributes(model)
        if name not in known
    }


def _names_of_attributes(model):
    # PyTorch keeps modules apart from other attributes.
    return [*vars(model), *vars(model).get("_modules", ())]


def without_graph(base):
    """A subclass of Functional or Sequential whose instances are plain models: they
    have no graph of their own.

    Everything that `base` adds to a `keras.Model` is that of a `keras.Model` again, so
    that a class which is derived from `base` and from a model with another `call` is a
    subclass of both and does what the latter does.
    """
    own = [cls for cls in base.__mro__ if not issubclass(keras.Model, cls)]
    names = {name for cls in own for name in vars(cls) if not name.startswith("__")}
    plain = {
        name: inspect.getattr_static(keras.Model, name)
        for name in names
        if hasattr(keras.Model, name)
    }
    # Like Functional models, they may be given layers after they are built.
    plain["_lock_state"] = base._lock_state
    plain["__init__"] = lambda self, **kwargs: keras.Model.__init__(self, **kwargs)
    # What `summary` and `plot_model` read of Functional models.
    plain |= {
        "_operations": property(lambda self: self.layers),
        "_nodes_by_depth": {},
        "_nodes": (),
    }
    plain["_run_through_graph"] = _no_graph
    return type(f"Plain{base.__name__}", (base,), plain)


def _no_graph(model, *args, **kwargs):
    raise TypeError(
        f"{model.name!r} is a SpikingModel without a graph of its own, which "
        "keras.models.clone_model cannot copy. To copy it: copy.deepcopy(model), or "
        "without its weights type(model).from_config(model.get_config())."
    )
