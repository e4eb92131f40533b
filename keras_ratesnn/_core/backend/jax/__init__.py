"""The backend functions on JAX, whose compiler fuses operations and divides the batch
among devices: there are no replicas."""

import contextlib
import functools
import math
import operator

import jax
import keras
from jax._src.core import trace_state_clean

from keras_ratesnn._core import block_filter, keras_internals
from keras_ratesnn._core.backend import base, xla_loops


class Backend(base.Backend):
    """The engine for JAX."""

    EAGER_IS_SLOW = True
    SETTINGS = (
        ("unrolled_steps", xla_loops, "UNROLLED_STEPS"),
        ("platform", xla_loops, "PLATFORM"),
    )

    filter_in_time = staticmethod(block_filter.filter_in_time)

    def graft(self, value, onto, slope, *more):
        return _graft(value, *zip((onto, slope), *more, strict=True))

    def again(self, function, *tensors):
        return jax.checkpoint(function)(*tensors)

    def traced(self, function):
        return jax.jit(function)

    def jvp(self, function, primals, tangents):
        return jax.jvp(function, primals, tangents)

    def pullback(self, function, inputs):
        _, pull, rest = jax.vjp(function, *inputs, has_aux=True)
        return lambda upstream: list(pull(upstream)), rest

    def with_backward(self, values, inputs, context, backward, kept=None):
        @jax.custom_vjp
        def attached(values, inputs, saved):
            return values

        def forward(values, inputs, saved):
            return values, saved

        def pull(saved, upstream):
            return None, backward(*saved, upstream), None

        attached.defvjp(forward, pull)
        return attached(values, inputs, (inputs if kept is None else kept, context))

    def postponed(self, tensors, until):
        if _platform() == "cpu":
            return xla_loops.depending(tensors, until)
        return jax.lax.optimization_barrier((tensors, until))[0]

    def compiled(self, function, model, graphs, settings, jit_compile):
        run, targets = _taking_values(function, model.variables)
        return _with_assignments(jax.jit(run), model.variables, targets)

    def compiled_for_few_calls(self, function, variables, tensors):
        run, targets = _taking_values(function, variables)
        values = keras_internals.values_of(variables)
        # Without what `jax.jit` keeps beside a program, a megabyte.
        lowered = jax.jit(run).lower(values, tensors)
        program = lowered.compile({"xla_backend_optimization_level": 0})
        return _with_assignments(program, variables, targets)

    def exporting(self, format):
        # The converter to ONNX cannot convert time loops.
        return xla_loops.unrolled() if format == "onnx" else contextlib.nullcontext()

    def grad_enabled(self):
        """Whether JAX transforms what runs now. Numbers have no derivative."""
        return not trace_state_clean()

    def unrolled_steps(self, with_gradient):
        """The choice in `xla_loops`. No limit for numbers: a loop would be traced and
        compiled again in each call."""
        if trace_state_clean():
            return math.inf
        return xla_loops.unrolled_steps(_platform(), with_gradient)

    def unrolled_network_steps(self):
        """The choice in `xla_loops`; no limit for numbers, as in `unrolled_steps`."""
        return math.inf if trace_state_clean() else xla_loops.unrolled_network_steps()

    def spikes_wait_as_bytes(self):
        """On GPUs. On CPUs XLA removes the barriers that this needs; for TPUs it was
        not tried."""
        return _platform() in ("gpu", "cuda", "rocm")

    def scan(self, body, carried, steps, dtype):
        return jax.lax.scan(body, carried, steps)

    def assigned_weight(self, value, before):
        """The assigned value: assignments are differentiated."""
        return value

    def optimization_barrier(self, tensors):
        """On CPUs XLA removes this barrier early, but its default scheduler keeps the
        order anyway."""
        return jax.lax.optimization_barrier(tensors)


def _platform():
    """The platform that programs are compiled for."""
    if xla_loops.PLATFORM == "auto":
        return jax.default_backend()
    return xla_loops.PLATFORM


def _taking_values(function, variables):
    """The function of tensors as one of the values of variables and of tensors, which
    also returns what it assigns, and the list of the variables that it assigns."""
    targets: list[keras.Variable] = []

    def run(values, tensors):
        scope = keras_internals.CollectingScope(variables, values)
        with scope:
            results = function(tensors)
        assigned = scope.assigned()
        targets[:] = [variable for variable, _ in assigned]
        return results, [value for _, value in assigned]

    return run, targets


def _with_assignments(program, variables, targets):
    """The function of tensors again, given the compiled one of `_taking_values`."""

    def call(tensors):
        results, values = program(keras_internals.values_of(variables), tensors)
        for variable, value in zip(targets, values, strict=True):
            variable.assign(value)
        return results

    return call


@jax.custom_jvp
def _graft(value, onto, slopes):
    return value


@_graft.defjvp
def _graft_jvp(primals, tangents):
    value, _, slopes = primals
    _, onto_tangents, _ = tangents
    changes = [
        slope * tangent for slope, tangent in zip(slopes, onto_tangents, strict=True)
    ]
    return value, functools.reduce(operator.add, changes)
