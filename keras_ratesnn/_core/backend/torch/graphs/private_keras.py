"""All uses of Keras' private API that only graphs need, as in `keras_internals`."""

import contextlib
import functools
import threading

import keras

from keras_ratesnn._core import keras_internals
from keras_ratesnn._core.contexts import replaced
from keras_ratesnn._core.keras_internals.imported import (
    TrackedDict,
    TrackedList,
    TrackedSet,
    get_autocast_scope,
    get_stateless_scope,
)

# With a dtype, since Keras would fix its default otherwise.
ATTRIBUTES_OF_EVERY_LAYER = frozenset(
    vars(keras.layers.Layer(name="any", dtype="float32"))
)
"""Names of the attributes that any layer has; in a layer without settings they affect
nothing that is computed."""

TRACKED_CONTAINERS = TrackedDict, TrackedList, TrackedSet
"""The types in which a layer keeps the containers that are its attributes."""


def hooks_of(layer):
    """The collections of functions that run before or after the calls of a layer, on
    PyTorch."""
    all_hooks = (
        getattr(layer, name, None)
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    )
    return [hooks for hooks in all_hooks if hooks is not None]


def in_stateless_scope():
    """Whether variables have other values than their own, apart from shifted seeds."""
    scope = get_stateless_scope()
    while isinstance(scope, keras_internals.ShiftedSeeds):
        scope = scope._outside
    return scope is not None


def autocast_dtype():
    """The dtype to which variables are cast when they are read, or `None`."""
    scope = get_autocast_scope()
    return None if scope is None else scope.dtype


def assign(variables, values, assign_tensors):
    """Assigns values, tensors of the same shapes and dtypes, to variables.

    Args:
        variables: List of Keras variables.
        values: List of tensors.
        assign_tensors: Function `(tensors, values)` that does so for the values of all
            variables at once.
    """
    if get_stateless_scope() is None:
        assign_tensors(keras_internals.values_of(variables), values)
        return
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


@contextlib.contextmanager
def torch_generators_from(generator_of, run):
    """A context in which `keras.random` on PyTorch makes other generators and draws, in
    this thread.

    Keras makes a new `torch.Generator` for each draw, from a seed that it reads as a
    Python number: in a recorded graph the same numbers would be drawn for ever
    (docs/upstream.md, draws cannot be traced).

    Args:
        generator_of: Function from a seed, an integer scalar tensor, to a
            `torch.Generator`.
        run: Function `(function, args, kwargs)` that calls a function of PyTorch.
    """
    from keras.src.backend.torch import random
    from keras.src.random.seed_generator import draw_seed

    thread = threading.get_ident()
    original = random.torch_seed_generator

    def generator(seed):
        if threading.get_ident() != thread:
            return original(seed)
        return generator_of(sum(draw_seed(seed)))

    class Torch:
        def __getattr__(self, name):
            function = getattr(torch, name)
            drawing = name in ("rand", "randint", "normal", "multinomial", "bernoulli")
            return functools.partial(draw, function) if drawing else function

    def draw(function, *args, **kwargs):
        return run(function, args, kwargs)

    torch = random.torch
    with (
        replaced(random, "torch", Torch()),
        replaced(random, "torch_seed_generator", generator),
    ):
        yield
