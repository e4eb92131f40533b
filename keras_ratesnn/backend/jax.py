"""The backend functions on JAX; `keras_ratesnn.backend` says what each is for."""

import contextlib
import functools

import jax

from keras_ratesnn import structures
from keras_ratesnn.backend import plain_normalization
from keras_ratesnn.backend.plain_normalization import normalize as normalize


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


normalize_as = functools.partial(plain_normalization.normalize_as, graft)


def no_gradient():
    """A context for code whose results are stopped anyway: under jit, what nobody asks for is never computed."""
    return contextlib.nullcontext()


def without_gradient(function):
    """The structure of tensors and numbers that `function()` returns, without gradient."""
    return structures.map_leaves(lambda leaf: jax.lax.stop_gradient(leaf) if isinstance(leaf, jax.Array) else leaf, function())


def records_gradient():
    """True: JAX decides after the fact what to differentiate, and drops the rest."""
    return True


def derivative_only():
    """A context for results whose value is not used: the compiler drops the value by itself."""
    return contextlib.nullcontext()


def unrolled_steps(with_gradient):
    """On processors XLA would compute every step of an unrolled loop anew from the first, and where nothing of it is kept for
    a backward pass, would do so as late as there, keeping the input of all steps until then. A loop is computed once, where
    it stands. With gradient it takes more copies, which pay from T = 5.

    On GPUs and TPUs, where `together` keeps a result in its place, an unrolled loop is one pass over memory.
    """
    if jax.default_backend() != "cpu":
        return 8
    return 4 if with_gradient else 1


def unrolled_network_steps():
    """Few: the compiler is free to begin a step of an unrolled loop before the last one is through, and then keeps the
    activations of several alive. A loop of its own does not, and compiles once, whatever T is.
    """
    return 2


def together(tensors):
    """A structure of tensors, each computed before any is used: what they are made of is free then.

    On processors XLA takes this barrier away early; its default scheduler there keeps the order by itself.
    """
    return jax.lax.optimization_barrier(tensors)


def untraced(function):
    """The function itself: a step is compiled as a whole."""
    return function


def fusing(allowed):
    """A context without effect: the compiler fuses by itself."""
    return contextlib.nullcontext()


def fuses(key, tensors):
    """Never: the compiler fuses by itself."""
    return False


def fuse(function, owner, key, tensors):
    """`function(*tensors)`."""
    return function(*tensors)


def layout_kept(repeated):
    """A context without effect: the compiler chooses the order of a tensor in memory."""
    return contextlib.nullcontext()


def multiply_add(x, factor, y):
    """x · factor + y."""
    return x * factor + y
