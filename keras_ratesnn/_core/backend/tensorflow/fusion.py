"""Compiles element-wise operations into one pass over memory; without XLA, TensorFlow
runs each as a pass of its own.

Only these are compiled: on CPUs the convolutions of TensorFlow's own libraries are
faster than those of XLA.
"""

import contextvars
import functools
import math

import tensorflow as tf

from keras_ratesnn._core import keras_internals, tree
from keras_ratesnn._core.backend.tensor_function import TensorFunction, description
from keras_ratesnn._core.backend.tensorflow.replicas import replicas
from keras_ratesnn._core.backend.tensorflow.xla_context import compiled_by_xla
from keras_ratesnn._core.contexts import setting

LEAST_ELEMENTS = 2**20
"""For fewer elements compilation takes too long, half a second for each layer."""

USUAL_BATCH = 32
"""The size that is assumed where that of a batch is not known."""

_NAMES = """
    Abs Add AddN AddV2 BroadcastTo Cast ConcatV2 Const DivNoNan Equal Erf Exp ExpandDims
    Expm1 Fill FloorDiv FloorMod Greater GreaterEqual Identity IdentityN Less LessEqual
    Log Log1p LogicalAnd LogicalNot LogicalOr Max Maximum Mean Min Minimum Mul Neg NoOp
    NotEqual OnesLike Pack Placeholder Pow PreventGradient Prod RealDiv Reciprocal Relu
    Relu6 Reshape Rint Round Rsqrt Select SelectV2 Shape Sigmoid Sign Slice Softplus
    Sqrt Square SquaredDifference Squeeze StopGradient StridedSlice Sub Sum Tanh Tile
    Transpose Unpack Where ZerosLike
"""
OPERATIONS = frozenset(_NAMES.split())
"""The operations of neurons that are compiled. Others may be unknown to XLA, which
would end the training."""

LONGEST_PASS = {False: 8, True: 4}
"""The most time steps in one pass over memory, by whether it has a gradient: on CPUs
XLA computes each step again from the first of its pass. Measured with a ResNet-18
(docs/benchmarks.md)."""

_allowed = contextvars.ContextVar("keras_ratesnn_fusing", default=False)


def fusing(allowed, training, loops):
    """A context that allows or forbids compilation. Graphs for inference may be
    exported to where there is no XLA."""
    return setting(_allowed, allowed and training)


def steps_in_a_pass(timesteps, with_gradient):
    """At most `LONGEST_PASS`; all without compilation, whose passes are single
    operations anyway."""
    return min(timesteps, LONGEST_PASS[with_gradient]) if _allowed.get() else timesteps


def elementwise(function, cell, key, *arguments):
    """`function(*arguments)`, compiled into one pass over memory where that pays off;
    see `base`."""
    leaves = filter(tf.is_tensor, tree.flatten(arguments))
    tensors = [
        *map(tf.convert_to_tensor, keras_internals.values_of(cell.weights)),
        *leaves,
    ]
    described = description(arguments, tf.is_tensor)
    # Variables that are not weights, such as those of a random generator, may change.
    if (
        described is None
        or len(cell.variables) > len(cell.weights)
        or not _fuses(tensors)
    ):
        return function(*arguments)
    programs = _programs_of(tf.compat.v1.get_default_graph())
    place = (
        id(cell),
        key,
        described,
        *((tensor.dtype, tuple(tensor.shape)) for tensor in tensors),
    )
    if place not in programs:
        programs[place] = _Program(function, cell, arguments, tensors)
    program = programs[place]
    return program(tensors) if program.is_elementwise else function(*arguments)


def _programs_of(graph):
    """The programs of the graph that is traced, in which the time steps of a layer
    share one.

    The graph holds them itself: they hold its tensors, and must be gone once it is.
    """
    # TensorFlow's graphs have no `__dict__`.
    if not hasattr(graph, "_keras_ratesnn_programs"):
        graph._keras_ratesnn_programs = {}
    return graph._keras_ratesnn_programs


class _Program:
    """A compiled function, whose backward pass stores its arguments only and computes
    the rest again, in one pass as well."""

    def __init__(self, function, cell, arguments, tensors):
        self._function = TensorFunction(function, cell, arguments, tf.is_tensor)
        self._outputs = _compiled(self._function.flat)
        self._gradients = _compiled(self._gradients_of_tensors)
        graph = self._outputs.get_concrete_function(
            *map(tf.TensorSpec.from_tensor, tensors)
        ).graph
        self.is_elementwise = self._function.is_closed and all(
            operation.type in OPERATIONS for operation in graph.get_operations()
        )

    def __call__(self, tensors):
        @tf.custom_gradient
        def forward(*tensors):
            def backward(*upstream):
                gradients = iter(self._gradients(tensors, upstream))
                return [
                    next(gradients) if tensor.dtype.is_floating else None
                    for tensor in tensors
                ]

            return self._outputs(*tensors), backward

        return tree.filled(
            self._function.structure, forward(*tensors), lambda number: number is None
        )

    def _gradients_of_tensors(self, tensors, upstream):
        wanted = [tensor for tensor in tensors if tensor.dtype.is_floating]
        with tf.GradientTape() as tape:
            tape.watch(wanted)
            outputs = self._function.flat(*tensors)
        return tape.gradient(
            outputs,
            wanted,
            upstream,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )


def _fuses(tensors):
    return (
        _allowed.get()
        and not tf.executing_eagerly()
        and not compiled_by_xla()
        and replicas.count() == 1
        # XLA compiles again for each size that it meets. Batches have one size or two,
        # but images may have many.
        and all(None not in tensor.shape[1:] for tensor in tensors)
        and sum(map(_elements, tensors)) >= LEAST_ELEMENTS
        and _xla_works()
    )


@functools.cache
def _xla_works():
    """Whether this TensorFlow has XLA for CPUs, which not all builds have."""
    with tf.init_scope():
        try:
            return bool(_compiled(lambda number: number + 1.0)(tf.zeros(())) == 1.0)
        # What is raised depends on the build.
        except Exception:
            return False


def _elements(tensor):
    return math.prod(USUAL_BATCH if size is None else size for size in tensor.shape)


def _compiled(function):
    return tf.function(function, jit_compile=True, autograph=False)
