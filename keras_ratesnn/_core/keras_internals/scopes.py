"""Scopes in which variables have other values than their own, or are read in another
dtype."""

import contextlib
import functools
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_ratesnn._core.keras_internals.imported import (
    AutocastScope,
    get_global_attribute,
    get_stateless_scope,
    set_global_attribute,
)
from keras_ratesnn._core.keras_internals.layers import with_sublayers
from keras_ratesnn._core.keras_internals.losses import with_owners


class Values(keras.StatelessScope):
    """A scope in which variables have the given values, in their own dtype. Assignments
    end with it.

    `keras.StatelessScope` casts values to the dtype in which variables are read at
    present: in half precision, to that of the layers (docs/upstream.md, casts values to
    half precision).

    Args:
        values: Iterable of pairs of a Keras variable and a tensor or another variable.
            Defaults to `()`.
        **options: As in `keras.StatelessScope`.
    """

    def __init__(self, values=(), **options):
        super().__init__(**options)
        for variable, value in values:
            if isinstance(value, keras.Variable):
                # On TensorFlow Keras takes a variable for a tensor, and it would be its
                # own value (docs/upstream.md, itself).
                with without_autocast():
                    value = value.value
            self.state_mapping[id(variable)] = ops.convert_to_tensor(
                value, dtype=variable._dtype
            )


class NoticingScope(Values):
    """`Values`, which notices what depends on more than these, or lasts longer than the
    scope.

    Attributes:
        is_closed: Boolean, whether no other variables were read, no variables assigned
            and no losses added.
    """

    def __init__(self, values):
        super().__init__(values, collect_losses=True)
        self.is_closed = True

    def get_current_value(self, variable):
        value = super().get_current_value(variable)
        self.is_closed = self.is_closed and value is not None
        return value

    def add_update(self, update):
        self.is_closed = False
        super().add_update(update)

    def add_loss(self, loss):
        self.is_closed = False


class Through(Values):
    """A thread-local scope that passes reads and assignments of variables to the
    enclosing scope."""

    def __init__(self, values=(), collect_losses=False):
        super().__init__(values, collect_losses=collect_losses)
        self._outside = get_stateless_scope()
        self._made = {}

    def get_current_value(self, variable):
        if self._outside is not None:
            return self._outside.get_current_value(variable)
        return self._made[id(variable)][1] if id(variable) in self._made else None

    def add_update(self, update):
        variable, value = update
        if self._outside is not None:
            self._outside.add_update(update)
        elif variable._value is None:
            # It was made in this scope, as Keras' own random generator at its first
            # draw, and exists when the scope ends.
            self._made[id(variable)] = update
        else:
            variable._direct_assign(value)

    def __exit__(self, *error):
        super().__exit__(*error)
        for variable, value in self._made.values():
            variable._direct_assign(value)


class Aside(Through):
    """A scope that collects losses. What is read after an assignment is a copy.

    PyTorch assigns in place: without it the backward pass of a step would find the
    weights that a later step has assigned.
    """

    def __init__(self):
        super().__init__(collect_losses=True)
        self._assigned = set()

    def get_current_value(self, variable):
        value = super().get_current_value(variable)
        return (
            ops.copy(variable._value)
            if value is None and id(variable) in self._assigned
            else value
        )

    def add_update(self, update):
        # The assignment itself needs the variable.
        self._assigned.discard(id(update[0]))
        super().add_update(update)
        self._assigned.add(id(update[0]))


class Replaced(Values):
    """`Values`, where an assignment of a weight may be given another value.

    Args:
        values: List of pairs of a Keras variable and a tensor.
        assigned: Function `(value, before) -> value`: a weight after an assignment of
            `value`, which was `before`.
        collect_losses: Boolean, whether the losses that layers add count in it.
            Defaults to `False`.
    """

    def __init__(self, values, assigned, collect_losses=False):
        super().__init__(values, collect_losses=collect_losses)
        self._as_assigned = assigned

    def add_update(self, update):
        variable, value = update
        before = self.get_current_value(variable)
        trains = variable.trainable and before is not None
        super().add_update(
            (variable, self._as_assigned(value, before) if trains else value)
        )


class Closed(Replaced):
    """`Replaced`, with all variables that a step may assign; raises ValueError at the
    assignment of another one, which would be lost."""

    def add_update(self, update):
        variable, _ = update
        if self.get_current_value(variable) is None:
            raise ValueError(
                "A step that is differentiated by itself, run again, or the body of a "
                "loop may assign variables of its own layers alone. Received: an "
                f"assignment of {variable.path!r}. Draw random numbers from a "
                "keras.random.SeedGenerator, an attribute of the cell or layer."
            )
        super().add_update(update)


class Tried(Replaced):
    """`Replaced`, for a model that is run without being changed: the losses that its
    layers add end with the scope, too.

    Args:
        model: A Keras model.
        values: As in `Replaced`; of all trainable variables, since regularizers read
            them.
        assigned: As in `Replaced`.
    """

    def __init__(self, model, values, assigned):
        super().__init__(values, assigned, collect_losses=True)
        self._model = model

    def __exit__(self, *arguments):
        super().__exit__(*arguments)
        # Keras identifies the losses of a layer by object ids, which later losses may
        # reuse (docs/upstream.md, loses losses).
        for layer in with_sublayers(self._model):
            layer._loss_ids.difference_update(map(id, self.losses))


class ReadOnce(Through):
    """A scope in which variables have the given values until they are assigned. Losses
    cannot be added in it.

    Args:
        values: List of pairs of a Keras variable and a tensor.
    """

    def get_current_value(self, variable):
        value = self.state_mapping.get(id(variable))
        return super().get_current_value(variable) if value is None else value

    def add_update(self, update):
        self.state_mapping.pop(id(update[0]), None)
        super().add_update(update)


class CollectingScope(Values):
    """A scope in which variables have the given values, which collects assignments and
    the losses of layers.

    Args:
        variables: List of Keras variables.
        values: List of tensors, their values.
    """

    def __init__(self, variables, values):
        super().__init__(
            zip(variables, values, strict=True),
            collect_losses=True,
            initialize_variables=False,
        )
        self._assigned: dict[int, Any] = {}

    def get_current_value(self, variable):
        value = super().get_current_value(variable)
        if value is None:
            raise ValueError(
                f"a layer uses variable {variable.path!r}, which does not belong to "
                "the network"
            )
        return value

    def add_update(self, update):
        variable, value = update
        if variable.trainable:
            raise ValueError(
                f"a layer assigns its trainable variable {variable.path!r}"
            )
        # An assignment carries no gradient.
        super().add_update((variable, ops.stop_gradient(value)))
        self._assigned[id(variable)] = variable

    def assigned(self):
        """List of pairs `(variable, value)` of the variables that were assigned, in the
        order of their first assignments."""
        return [
            (variable, self.get_current_value(variable))
            for variable in self._assigned.values()
        ]

    def added(self, layers):
        """List of pairs `(layer, loss)`: the losses that these layers added. Forgets
        them."""
        return with_owners(self.losses, layers)


@contextlib.contextmanager
def without_values():
    """A context in which new variables have shapes, but no values. It yields a list,
    which has these variables at the end.

    Keras would give them values at the end of the next `StatelessScope`, even if they
    were larger than memory. `give_values` does it.
    """
    made: list[keras.Variable] = []
    waiting = list(get_global_attribute("uninitialized_variables", []))
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield made
    finally:
        made.extend(get_global_attribute("uninitialized_variables", [])[len(waiting) :])
        set_global_attribute("uninitialized_variables", waiting)


def give_values(layer, variables, values):
    """Gives the variables of a layer that was made in `without_values` their first
    values.

    Args:
        layer: The layer.
        variables: List of all variables.
        values: Pairs of some of them and arrays, which are copied. The others have
            initial values.
    """
    arrays = {id(variable): array for variable, array in values}
    for variable in variables:
        if id(variable) in arrays:
            variable._initializer = functools.partial(_copy, arrays[id(variable)])
        variable._deferred_initialize()
    # Where a layer is a module of PyTorch, Keras has waited for the values; exports
    # need its parameters.
    is_module = hasattr(keras.layers.Layer, "_track_variables")
    for part in with_sublayers(layer) if is_module else ():
        if part.variables:
            part._track_variables()


def _copy(array, shape, dtype):
    return ops.convert_to_tensor(np.array(array), dtype)


def without_autocast():
    """A context in which variables are read in their own dtype, without autocasting."""
    return AutocastScope(None)
