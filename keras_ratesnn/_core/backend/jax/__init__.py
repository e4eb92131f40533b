"""The backend functions on JAX; `keras_ratesnn._core.backend.contract` describes them."""

import contextlib
import functools

import jax

from keras_ratesnn._core import keras_internals, tree
from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn._core.backend import plain_normalization, replica_moments, xla_loops
from keras_ratesnn._core.backend.jax import replicas


@jax.custom_jvp
def graft(value: Tensor, onto: Tensor, slope: float | Tensor) -> Tensor:
    """`value`, with a chosen derivative."""
    return value


@graft.defjvp
def _graft_jvp(primals, tangents):
    value, _, slope = primals
    _, onto_tangent, _ = tangents
    return value, slope * onto_tangent


def jvp(function, primals, tangents):
    """`(outputs, tangents)`: the list of tensors that a function returns, and its directional derivative."""
    return jax.jvp(function, primals, tangents)


def gradient_of(function, inputs, upstream):
    """`(gradients, rest)` of `function(*inputs)`: a list of tensors, and a structure that is not differentiated."""
    _, pull, rest = jax.vjp(function, *inputs, has_aux=True)
    return list(pull(upstream)), rest


def with_backward(values, inputs, others, backward):
    """A list of tensors, whose gradients with respect to `inputs` are `backward(inputs, others, upstream)`."""

    @jax.custom_vjp
    def attached(values, inputs, others):
        return values

    def forward(values, inputs, others):
        return values, (inputs, others)

    def pull(saved, upstream):
        return None, backward(*saved, upstream), None

    attached.defvjp(forward, pull)
    return attached(values, inputs, others)


def fusing(allowed, training, kept):
    """A context without effect: the compiler fuses operations anyway."""
    return contextlib.nullcontext()


def elementwise(function, cell, key, *arguments):
    """`function(*arguments)`: the compiler fuses operations anyway."""
    return function(*arguments)


def steps_in_a_pass(timesteps, with_gradient):
    """All: the compiler sees a whole step of training anyway."""
    return timesteps


merged_moments = functools.partial(replica_moments.merged, replicas)
normalize = functools.partial(plain_normalization.normalize, replicas)
normalize_as = functools.partial(plain_normalization.normalize_as, graft, replicas)


def detached(function, *args):
    """The result of `function(*args)`, a structure of tensors and numbers, without gradient. Tensors keep their Keras masks."""

    def stopped(leaf):
        return keras_internals.put_mask(jax.lax.stop_gradient(leaf), keras_internals.mask_of(leaf))

    return tree.map_leaves(lambda leaf: stopped(leaf) if isinstance(leaf, jax.Array) else leaf, function(*args))


def unrolled_steps(with_gradient):
    """The choice in `xla_loops` for the device."""
    return xla_loops.unrolled_steps(jax.default_backend(), with_gradient)


def scan(body, carried, steps, dtype):
    """`carried, output = body(carried, step)` for each of the steps, a tensor `(T, ...)`, see `contract`."""
    return jax.lax.scan(body, carried, steps)


def assigned_weight(value, before):
    """The assigned value: assignments are differentiated."""
    return value


def optimization_barrier(tensors):
    """A structure of tensors that are all computed before any is used, so that their inputs can be freed.

    On CPUs XLA removes this barrier early, but its default scheduler keeps the order anyway.
    """
    return jax.lax.optimization_barrier(tensors)
