"""The backend functions on JAX; `keras_ratesnn._core.backend` describes them."""

import contextlib
import functools

import jax

from keras_ratesnn._core import keras_internals, tree
from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn._core.backend import plain_normalization, replica_moments, xla_loops
from keras_ratesnn._core.backend.jax import replicas
from keras_ratesnn._core.backend.shared_jax_tensorflow import CallGraph as CallGraph
from keras_ratesnn._core.backend.shared_jax_tensorflow import differentiable as differentiable
from keras_ratesnn._core.backend.shared_jax_tensorflow import elementwise as elementwise
from keras_ratesnn._core.backend.shared_jax_tensorflow import finite_rows as finite_rows
from keras_ratesnn._core.backend.shared_jax_tensorflow import fusing as fusing
from keras_ratesnn._core.backend.shared_jax_tensorflow import grad_enabled as grad_enabled
from keras_ratesnn._core.backend.shared_jax_tensorflow import layout_kept as layout_kept
from keras_ratesnn._core.backend.shared_jax_tensorflow import multiply_add as multiply_add
from keras_ratesnn._core.backend.shared_jax_tensorflow import no_gradient as no_gradient
from keras_ratesnn._core.backend.shared_jax_tensorflow import noise_state as noise_state
from keras_ratesnn._core.backend.shared_jax_tensorflow import repeated_noise as repeated_noise
from keras_ratesnn._core.backend.shared_jax_tensorflow import set_noise_state as set_noise_state
from keras_ratesnn._core.backend.shared_jax_tensorflow import unrolled_network_steps as unrolled_network_steps
from keras_ratesnn._core.backend.shared_jax_tensorflow import untraced as untraced
from keras_ratesnn._core.backend.shared_jax_torch import check_equal as check_equal


@jax.custom_jvp
def graft(value: Tensor, onto: Tensor, slope: float | Tensor) -> Tensor:
    """Returns `value`; its derivative is `slope` with respect to `onto`, and none with respect to anything else.

    Args:
        value: Tensor, the result.
        onto: Tensor of the same shape and dtype, with respect to which the result is differentiated. Its value is not used.
        slope: Tensor of the same shape and dtype, or a float.

    Returns:
        Tensor equal to `value`.
    """
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
    """`carried, output = body(carried, step)` for each of the steps, a tensor `(T, ...)`, see `backend`."""
    return jax.lax.scan(body, carried, steps)


def assigned_weight(value, before):
    """The assigned value: assignments are differentiated."""
    return value


def optimization_barrier(tensors):
    """A structure of tensors that are all computed before any is used, so that their inputs can be freed.

    On CPUs XLA removes this barrier early, but its default scheduler keeps the order anyway.
    """
    return jax.lax.optimization_barrier(tensors)


def ranks_of_batch(data):
    """No ranks, and the data: JAX compiles for each shape automatically."""
    return (), data


def reading_once(network):
    """A context without effect: reads keep their order anyway."""
    return contextlib.nullcontext()


def loses_replaced_weights(layer):
    """False: tensors that replace weights have their gradients."""
    return False
