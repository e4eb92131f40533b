"""The backend functions on JAX; `keras_ratesnn._core.backend` says what each is for."""

import contextlib
import functools

import jax

from keras_ratesnn._core import keras_internals, tree
from keras_ratesnn._core.backend import plain_normalization
from keras_ratesnn._core.backend.graph_compiled import derivative_only as derivative_only
from keras_ratesnn._core.backend.graph_compiled import elementwise as elementwise
from keras_ratesnn._core.backend.graph_compiled import finite_rows as finite_rows
from keras_ratesnn._core.backend.graph_compiled import fusing as fusing
from keras_ratesnn._core.backend.graph_compiled import grad_enabled as grad_enabled
from keras_ratesnn._core.backend.graph_compiled import layout_kept as layout_kept
from keras_ratesnn._core.backend.graph_compiled import multiply_add as multiply_add
from keras_ratesnn._core.backend.graph_compiled import no_gradient as no_gradient
from keras_ratesnn._core.backend.graph_compiled import noise_state as noise_state
from keras_ratesnn._core.backend.graph_compiled import set_noise_state as set_noise_state
from keras_ratesnn._core.backend.graph_compiled import unrolled_network_steps as unrolled_network_steps
from keras_ratesnn._core.backend.graph_compiled import untraced as untraced
from keras_ratesnn._core.backend.known_shapes import check_equal as check_equal
from keras_ratesnn._core.backend.plain_normalization import normalize as normalize


@jax.custom_jvp
def graft(value, onto, slope):
    """Returns `value`; its derivative is `slope` with respect to `onto`, and none with respect to anything else.

    Args:
        value: Tensor, the result.
        onto: Tensor of the same shape and dtype, what the result is differentiated by. Its own value is not used.
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
    """`(outputs, tangents)` of a function of tensors that returns a list of them: its derivative in one direction."""
    return jax.jvp(function, primals, tangents)


def gradient_of(function, inputs, upstream):
    """`(gradients, rest)` of `function(*inputs)`: a list of tensors, and a structure that is not differentiated."""
    _, pull, rest = jax.vjp(function, *inputs, has_aux=True)
    return list(pull(upstream)), rest


def with_backward(values, inputs, others, backward):
    """A list of tensors, whose gradients go to `inputs` as `backward(inputs, others, upstream)` says."""

    @jax.custom_vjp
    def attached(values, inputs, others):
        return values

    def forward(values, inputs, others):
        return values, (inputs, others)

    def pull(saved, upstream):
        return None, backward(*saved, upstream), None

    attached.defvjp(forward, pull)
    return attached(values, inputs, others)


normalize_as = functools.partial(plain_normalization.normalize_as, graft)


def without_gradient(function):
    """The structure of tensors and numbers that `function()` returns, without gradient; Keras' masks stay on the tensors."""

    def stopped(leaf):
        return keras_internals.put_mask(jax.lax.stop_gradient(leaf), keras_internals.mask_of(leaf))

    return tree.map_leaves(lambda leaf: stopped(leaf) if isinstance(leaf, jax.Array) else leaf, function())


def unrolled_steps(with_gradient):
    """On processors XLA would compute every step of an unrolled loop anew from the first, and where nothing of it is kept for
    a backward pass, would do so as late as there, keeping the input of all steps until then. A loop is computed once, where
    it stands. With gradient it takes more copies, which pay from T = 5.

    On GPUs and TPUs, where `together` keeps a result in its place, an unrolled loop is one pass over memory.
    """
    if jax.default_backend() != "cpu":
        return 8
    return 4 if with_gradient else 1


def optimization_barrier(tensors):
    """A structure of tensors, each computed before any is used: what they are made of is free then.

    On processors XLA takes this barrier away early; its default scheduler there keeps the order by itself.
    """
    return jax.lax.optimization_barrier(tensors)


def ranks_of_batch(data):
    """Nothing, and the data: JAX compiles for each shape by itself."""
    return (), data


def reading_once(network):
    """A context without effect: reads keep their order anyway."""
    return contextlib.nullcontext()


def replaceable(layer):
    """All variables of a layer."""
    return layer.variables
