"""The backend functions on JAX, whose compiler fuses operations and divides the batch
among devices: there are no replicas."""

import contextlib
import functools
import math
import operator

import jax
import keras
from jax._src.core import trace_state_clean

from keras_ratesnn._core import keras_internals
from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn._core.backend import base, xla_filter, xla_loops


class Backend(base.Backend):
    """JAX."""

    EAGER_IS_SLOW = True
    SETTINGS = (("unrolled_steps", xla_loops, "UNROLLED_STEPS"),)

    filter_in_time = staticmethod(xla_filter.filter_in_time)

    def graft(
        self,
        value: Tensor,
        onto: Tensor,
        slope: float | Tensor,
        *more: tuple[Tensor, float | Tensor],
    ) -> Tensor:
        """`value`, with chosen derivatives."""
        return _graft(value, *zip((onto, slope), *more, strict=True))

    def traced(self, function):
        return jax.jit(function)

    def jvp(self, function, primals, tangents):
        return jax.jvp(function, primals, tangents)

    def pullback(self, function, inputs):
        _, pull, rest = jax.vjp(function, *inputs, has_aux=True)
        return lambda upstream: list(pull(upstream)), rest

    def with_backward(self, values, inputs, context, backward):
        @jax.custom_vjp
        def attached(values, inputs, context):
            return values

        def forward(values, inputs, context):
            return values, (inputs, context)

        def pull(saved, upstream):
            return None, backward(*saved, upstream), None

        attached.defvjp(forward, pull)
        return attached(values, inputs, context)

    def compiled(self, function, model, graphs, settings, jit_compile):
        return _compiled(function, model.variables)

    def compiled_for_few_calls(self, function, model):
        return _compiled(function, model.variables, xla_backend_optimization_level=0)

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
        return xla_loops.unrolled_steps(jax.default_backend(), with_gradient)

    def unrolled_network_steps(self):
        """Small; no limit for numbers, as in `unrolled_steps`."""
        return math.inf if trace_state_clean() else xla_loops.unrolled_network_steps()

    def scan(self, body, carried, steps, dtype):
        return jax.lax.scan(body, carried, steps)

    def assigned_weight(self, value, before):
        """The assigned value: assignments are differentiated."""
        return value

    def optimization_barrier(self, tensors):
        """On CPUs XLA removes this barrier early, but its default scheduler keeps the
        order anyway."""
        return jax.lax.optimization_barrier(tensors)


def _compiled(function, variables, **options):
    """A function of tensors that uses and assigns variables, compiled with these
    options of XLA."""
    targets: list[keras.Variable] = []

    def run(values, tensors):
        scope = keras_internals.CollectingScope(variables, values)
        with scope:
            results = function(tensors)
        assigned = scope.assigned()
        targets[:] = [variable for variable, _ in assigned]
        return results, [value for _, value in assigned]

    program = jax.jit(run, compiler_options=options)

    def with_assignments(tensors):
        results, values = program(keras_internals.values_of(variables), tensors)
        for variable, value in zip(targets, values, strict=True):
            variable.assign(value)
        return results

    return with_assignments


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
