"""The state of models and layers: reading, adding to it, and giving it back after an
error."""

import functools

import keras
from keras import ops

from keras_ratesnn._core.keras_internals.imported import get_stateless_scope
from keras_ratesnn._core.keras_internals.scopes import without_autocast


def values_of(variables):
    """The values of variables in their own dtype, a list. On TensorFlow, outside of
    scopes, they are its variables."""
    if get_stateless_scope() is None:
        # A fraction of the time of the property.
        return [variable._value for variable in variables]
    with without_autocast():
        return [variable.value for variable in variables]


def torch_parameters(layer):
    """The collection of the weights of a layer that Keras makes for PyTorch, or
    `None`."""
    return getattr(layer, "_torch_params", None)


def set_state(model, name, value):
    """Sets an attribute of a model that is already built to an object with variables,
    as if it had been set before.

    Keras forbids that: its tracker is locked once a layer is built, also where the
    variables already exist.
    """
    if hasattr(model, "jax_state_sync"):
        # During `fit` on JAX the state is kept elsewhere; this synchronises it, so that
        # it is collected again.
        model.jax_state_sync()
    tracker, locked = model._tracker, model._tracker.locked
    tracker.unlock()
    setattr(model, name, value)
    if locked:
        tracker.lock()


def state_shardings(model):
    """The sharding of a model's state in the form that Keras needs to make a function
    on JAX, or `None`."""
    spread = (
        hasattr(model, "_get_state_sharding_spec")
        and keras.distribution.distribution() is not None
    )
    return model._get_state_sharding_spec() if spread else None


def keep_apart(model):
    """Gives the optimizer of a model arrays of its own, where Keras has let it share
    those of weights.

    On JAX `evaluate` and `predict` use up the arrays of weights, and with them the
    moving averages of an optimizer, to which `fit` sets the weights at its end
    (docs/upstream.md, averages).
    """
    optimizer = getattr(model, "optimizer", None)
    if keras.backend.backend() != "jax" or optimizer is None:
        return
    shared = {id(variable._value) for variable in model.variables}
    for variable in optimizer.variables:
        if variable._value is not None and id(variable._value) in shared:
            variable._direct_assign(ops.copy(variable._value))


_STATE = ("trainable_variables", "non_trainable_variables")

_STATE_OF = {
    "train": (*_STATE, "optimizer_variables", "metrics_variables"),
    "test": (*_STATE, "metrics_variables"),
    "predict": _STATE,
}


def reattach_state(model, purpose, state):
    """Gives a model its variables again, which Keras takes from it while a function
    runs on JAX, after an error.

    Args:
        model: A Keras model.
        purpose: `"train"`, `"test"` or `"predict"`.
        state: List with the state that was passed to the function; empty on other
            backends.
    """
    # What the function has begun to compute may have been deleted, to reuse the memory.
    if not state or any(array.is_deleted() for array in keras.tree.flatten(state)):
        return
    model._jax_state = dict(zip(_STATE_OF[purpose], state[0], strict=True))
    model._jax_state_synced = False
    model.jax_state_sync()


def keeps_state(method):
    """Decorates `evaluate` or `predict`: a model has its variables again afterwards,
    also if a callback raises an error."""

    @functools.wraps(method)
    def keeping(self, *args, **kwargs):
        try:
            return method(self, *args, **kwargs)
        finally:
            if hasattr(self, "jax_state_sync"):
                self.jax_state_sync()

    return keeping
