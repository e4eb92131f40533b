"""The backend functions on TensorFlow."""

import contextlib
import contextvars
import functools
import itertools
import math

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla
from tensorflow.python.eager import record

from keras_ratesnn._core import block_filter, keras_internals, tree
from keras_ratesnn._core.backend import base, xla_loops
from keras_ratesnn._core.backend.tensorflow import fusion, normalization
from keras_ratesnn._core.backend.tensorflow.replicas import replicas
from keras_ratesnn._core.backend.tensorflow.xla_context import compiled_by_xla
from keras_ratesnn._core.contexts import replaced, setting

_forward_mode = contextvars.ContextVar("keras_ratesnn_forward_mode", default=False)


class Backend(base.Backend):
    """The engine for TensorFlow."""

    SETTINGS = (
        ("unrolled_steps", xla_loops, "UNROLLED_STEPS"),
        ("least_elements", fusion, "LEAST_ELEMENTS"),
    )

    replicas = replicas
    elementwise = staticmethod(fusion.elementwise)
    fusing = staticmethod(fusion.fusing)
    steps_in_a_pass = staticmethod(fusion.steps_in_a_pass)

    def graft(self, value, onto, slope, *more):
        pairs = [(onto, slope), *more]
        if _forward_mode.get():
            # In forward mode the derivative of a custom gradient is silently zero.
            value = tf.stop_gradient(value)
            for onto, slope in pairs:
                value = value + tf.stop_gradient(slope) * (
                    onto - tf.stop_gradient(onto)
                )
            return value
        return _graft(value, *zip(*pairs, strict=True))

    def exporting(self, format):
        return _exact_choices() if format == "onnx" else contextlib.nullcontext()

    def traced(self, function):
        return tf.function(function, autograph=False)

    def jvp(self, function, primals, tangents):
        # Copies, because primals must be distinct.
        primals = [tf.identity(primal) for primal in primals]
        with setting(_forward_mode, True):
            with tf.autodiff.ForwardAccumulator(primals, list(tangents)) as accumulator:
                outputs = function(*primals)
            return outputs, [
                accumulator.jvp(output, tf.UnconnectedGradients.ZERO)
                for output in outputs
            ]

    def pullback(self, function, inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs, rest = function(*inputs)

        def pull(upstream):
            return tape.gradient(
                outputs,
                inputs,
                upstream,
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )

        return pull, rest

    def filter_in_time(self, inputs, kernel):
        if compiled_by_xla():
            return block_filter.filter_in_time(inputs, kernel)
        return super().filter_in_time(inputs, kernel)

    def with_backward(self, values, inputs, context, backward, kept=None):
        @tf.custom_gradient
        def attached(*inputs):
            stopped = [tf.stop_gradient(value) for value in values]
            saved = list(inputs) if kept is None else kept

            def pull(*upstream):
                return backward(saved, context, list(upstream))

            return stopped, pull

        # Some inputs may be TensorFlow's variables.
        return attached(*map(tf.convert_to_tensor, inputs))

    def normalize(self, inputs, axis, gamma, beta, epsilon, weights=None):
        """In one pass over memory where TensorFlow has a kernel for it."""
        if not _forward_mode.get() and normalization.has_kernels(
            inputs, axis, (gamma, beta), weights
        ):
            return normalization.normalize(inputs, gamma, beta, epsilon)
        return base.Backend.normalize(self, inputs, axis, gamma, beta, epsilon, weights)

    def normalize_as(
        self, inputs, axis, gamma, beta, mean, variance, epsilon, weights=None
    ):
        plain = functools.partial(base.Backend.normalize_as, self)
        if not _forward_mode.get() and normalization.has_kernels(
            inputs, axis, (gamma, beta, mean, variance), weights
        ):
            return normalization.normalize_as(
                plain, inputs, gamma, beta, mean, variance, epsilon
            )
        return plain(inputs, axis, gamma, beta, mean, variance, epsilon, weights)

    def check_equal(self, size, wanted, message):
        """Raises ValueError if two integers differ, or tf.errors.InvalidArgumentError
        if they are known only at run time."""
        if not isinstance(size, int) or not isinstance(wanted, int):
            tf.debugging.assert_equal(size, wanted, message)
        elif size != wanted:
            raise ValueError(message)

    def grad_enabled(self):
        """Whether a tape records, or may record the graph that is traced."""
        return record.could_possibly_record() or not tf.executing_eagerly()

    def unrolled_steps(self, with_gradient):
        """The choice in `xla_loops` for XLA. Without XLA no limit: TensorFlow copies a
        tensor to update it inside a loop.

        No limit for replicas either, which cannot exchange statistics inside a compiled
        loop.
        """
        if replicas.count() > 1 or not compiled_by_xla():
            return math.inf
        return xla_loops.unrolled_steps(
            "gpu" if tf.config.list_logical_devices("GPU") else "cpu", with_gradient
        )

    def scan(self, body, carried, steps, dtype):
        timesteps = steps.shape[0]
        inputs = tf.TensorArray(
            steps.dtype, timesteps, element_shape=steps.shape[1:]
        ).unstack(steps)
        outputs = tf.TensorArray(dtype, timesteps)

        def advance(t, carried, outputs):
            carried, output = body(carried, inputs.read(t))
            return t + 1, carried, outputs.write(t, output)

        # XLA can differentiate a loop only if the number of iterations is a constant.
        _, carried, outputs = tf.while_loop(
            lambda t, *_: t < timesteps,
            advance,
            (0, carried, outputs),
            maximum_iterations=timesteps,
        )
        return carried, outputs.stack()

    def unrolled_network_steps(self):
        """The choice in `xla_loops`; no limit for replicas, which cannot exchange
        statistics inside a compiled loop."""
        return xla_loops.unrolled_network_steps() if replicas.count() == 1 else math.inf

    def optimization_barrier(self, tensors):
        """Only XLA needs it: TensorFlow's executor frees what is no longer needed. On
        CPUs XLA removes the barrier early."""
        if not compiled_by_xla():
            return tensors
        leaves = map(tf.convert_to_tensor, tree.flatten(tensors))
        return tree.filled(tensors, xla.optimization_barrier(*leaves))

    def postponed(self, tensors, until):
        if compiled_by_xla():
            return self.optimization_barrier((tensors, until))[0]
        with tf.control_dependencies(until):
            return list(map(tf.identity, tensors))

    def batches_of_step(self, data, steps):
        spec = getattr(data, "element_spec", None)
        if not isinstance(data, tf.data.Iterator):
            return super().batches_of_step(data, steps) if spec is None else ([], data)
        if not all(isinstance(leaf, tf.TensorSpec) for leaf in tf.nest.flatten(spec)):
            return [], data
        batches = list(itertools.islice(data, steps))
        # Of the same type, so that nothing is traced again.
        return batches, iter(
            tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=spec)
        )

    def compiled(self, function, model, graphs, settings, jit_compile):
        traced = tf.function(function, autograph=False)
        functions = {}

        def run(tensors):
            # TensorFlow takes longer to find the trace than many layers to run.
            key = tuple((tuple(tensor.shape), tensor.dtype) for tensor in tensors)
            if key not in functions:
                functions[key] = traced.get_concrete_function(tensors)
            return functions[key](tensors)

        return run

    def ranks_of_batch(self, data):
        """Keras lets TensorFlow trace a function for the most general shape it has
        seen, which is unknown for inputs both with and without time.
        """
        batch, data = keras_internals.first_batch(data)
        leaves = tf.nest.flatten(batch, expand_composites=True)
        return tuple(
            tf.TensorShape(getattr(leaf, "shape", ())).rank for leaf in leaves
        ), data

    def reading_once(self, network):
        """A context in which each weight of a network is read only once.

        The forward pass needs that read, and the variable is assigned afterwards. With
        a separate read for the backward pass, TensorFlow's optimizers can lose the
        order of that read and the assignment: the dependency optimizer removes the edge
        between them if there is a longer path through an unused value, and the next
        optimizer removes that path (TensorFlow 2.21). The rate pass has many such
        values. Some gradients would then occasionally use the updated weights of the
        following layer.
        """
        weights = (
            [] if self.loses_replaced_weights(network) else network.trainable_variables
        )
        values = map(tf.convert_to_tensor, keras_internals.values_of(weights))
        return keras_internals.ReadOnce(zip(weights, values, strict=True))

    def loses_replaced_weights(self, layer):
        """Whether a layer, or one inside it, was created in a `keras.RematScope`.

        `tf.recompute_grad` computes the gradients of variables and arguments, but not
        those of tensors that replace variables (docs/upstream.md, recomputation).
        """
        return keras_internals.is_rematerialized(layer)


@tf.custom_gradient
def _graft(value, onto, slopes):
    def gradient(upstream):
        return (
            None,
            *(upstream * tf.cast(slope, upstream.dtype) for slope in slopes),
            *(None for _ in onto),
        )

    return tf.identity(value), gradient


def _exact_choices():
    """A context in which tf2onnx writes a choice between two tensors as one.

    To be faster, it writes the sum of their products with 0 and 1, which is NaN where
    what is not chosen is NaN or infinite: padding may be both.
    """
    from tf2onnx.onnx_opset.controlflow import Select

    def choose(ctx, node, **kwargs):
        # What tf2onnx does if it knows that there may be a NaN.
        node.set_attr("handles_nan", True)
        Select.version_9(ctx, node, **kwargs)

    return replaced(Select, "version_7", choose)
