"""The backend functions on PyTorch, which run operation by operation. What records and
compiles these is apart, in `graphs`."""

import contextlib
import contextvars
import functools
import importlib
import math
import threading
import warnings

import torch

from keras_ratesnn._core import keras_internals, tree
from keras_ratesnn._core.backend import base
from keras_ratesnn._core.backend.torch import normalization, time_filter
from keras_ratesnn._core.backend.torch.derivative import (
    differentiable_outputs,
    first_derivative_only,
)
from keras_ratesnn._core.backend.torch.layout import LayoutKept
from keras_ratesnn._core.backend.torch.replicas import replicas
from keras_ratesnn._core.contexts import setting

_forward_mode = contextvars.ContextVar("keras_ratesnn_forward_mode", default=False)
_differentiating = threading.RLock()
"""PyTorch has one forward-mode derivative at a time for all threads."""

# Since PyTorch 2.7.
_is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)


@functools.cache
def _import_decompositions():
    """PyTorch imports this module at the first derivative in forward mode, and scripts
    its functions, which it deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("torch._decomp.decompositions_for_jvp")


class Backend(base.Backend):
    """PyTorch runs operation by operation: loops need no limit."""

    # Keras would trace Python code whose recorded calls `graphs` replaces.
    KERAS_COMPILES = False

    replicas = replicas

    def any_size(self, name):
        return torch.export.Dim(name, min=1)

    def check_call(self, model):
        received = f"Received: a call of model {model.name!r}"
        if torch._C._functorch.peek_interpreter_stack() is not None:
            raise RuntimeError(
                "PyTorch's vmap, and the transforms of torch.func, do not support "
                f"spiking models, whose derivatives are their own. {received} inside "
                "of one. Call it on whole batches, and take derivatives by "
                "torch.autograd.grad or torch.autograd.functional.jacobian."
            )
        parameters = keras_internals.torch_parameters(model)
        values = getattr(parameters, "_parameters", {}).values()
        if torch.Tensor in map(type, values):
            raise RuntimeError(
                "torch.func.functional_call does not replace the weights that a Keras "
                f"model uses. {received} with other parameters. Use "
                "model.stateless_call(trainable_variables, non_trainable_variables, x)."
            )
        # `torch.utils.checkpoint` keeps only the state of PyTorch's own generators.
        in_backward_pass = (
            torch.is_grad_enabled() and torch._C._current_graph_task_id() != -1
        )
        if in_backward_pass and keras_internals.seed_states(model):
            raise RuntimeError(
                "torch.utils.checkpoint, or a keras.RematScope in which a "
                "SpikingModel was made, repeats a call with other random numbers, for "
                f"which its gradient would be wrong. {received}, which draws random "
                "numbers, in a backward pass. Make layers that draw none in a "
                "keras.RematScope instead, the others and the SpikingModel outside of "
                "it."
            )

    def graft(self, value, onto, slope, *more):
        pairs = [(onto, slope), *more]
        if _forward_mode.get():
            # An autograd function with derivatives in both modes takes PyTorch several
            # times as long to call.
            value = value.detach()
            for onto, slope in pairs:
                slope = slope.detach() if torch.is_tensor(slope) else slope
                value = value + slope * (onto - onto.detach())
            return value
        ontos, slopes = zip(*pairs, strict=True)
        return _Graft.apply(value.detach(), slopes, *ontos)

    def normalize(self, inputs, axis, gamma, beta, epsilon, weights=None):
        """In one pass over memory where the statistics are those of one replica, with
        equal weights."""
        if weights is None and replicas.count() == 1:
            return normalization.normalize(inputs, axis, gamma, beta, epsilon)
        return super().normalize(inputs, axis, gamma, beta, epsilon, weights)

    def normalize_as(
        self, inputs, axis, gamma, beta, mean, variance, epsilon, weights=None
    ):
        are_of_rows = weights is None or weights.ndim == mean.ndim == 1
        if are_of_rows and replicas.count() == 1:
            return normalization.normalize_as(
                inputs, axis, gamma, beta, mean, variance, epsilon, weights
            )
        return super().normalize_as(
            inputs, axis, gamma, beta, mean, variance, epsilon, weights
        )

    def jvp(self, function, primals, tangents):
        def with_derivative(*primals):
            # Autograd may be off outside, and spikes would then have no derivative.
            # Nothing is recorded for a backward pass.
            with torch.enable_grad():
                return function(*primals)

        _import_decompositions()
        with setting(_forward_mode, True), _differentiating:
            return torch.func.jvp(
                with_derivative,
                tuple(primal.detach() for primal in primals),
                tuple(tangents),
            )

    def differentiable(self, tensor):
        """The tensor as a leaf of its own, for autograd."""
        return tensor.detach().requires_grad_()

    def pullback(self, function, inputs):
        with torch.enable_grad():
            outputs, rest = function(*inputs)
        rest = tree.map_leaves(
            lambda leaf: leaf.detach() if torch.is_tensor(leaf) else leaf, rest
        )

        def pull(upstream):
            nonlocal outputs
            wanted = [tensor for tensor in inputs if tensor.requires_grad]
            results, onto = differentiable_outputs(outputs, upstream)
            # Not needed any more.
            outputs = []
            if not (wanted and results):
                return [None for _ in inputs]
            gradients = iter(
                torch.autograd.grad(results, wanted, onto, allow_unused=True)
            )
            return [
                next(gradients) if tensor.requires_grad else None for tensor in inputs
            ]

        return pull, rest

    def filter_in_time(self, inputs, kernel):
        # Derivatives in forward mode, and what others compile or export, are of
        # PyTorch's own operations.
        others_trace = torch.compiler.is_compiling() or torch.jit.is_tracing()
        if _forward_mode.get() or others_trace or inputs.device.type != "cpu":
            return super().filter_in_time(inputs, kernel)
        return time_filter.filter_in_time(inputs, kernel)

    def with_backward(self, values, inputs, context, backward, kept=None):
        # Autograd calls the function inside a step that `torch.compile` may have
        # compiled.
        backward = self.untraced(backward)
        saved = [*(inputs if kept is None else kept), *context]
        return list(_WithBackward.apply(backward, values, saved, *inputs))

    def steps_of_samples(self, tensor, steps):
        # ONNX has no operation for that of Keras.
        return torch.gather(tensor, 1, steps.to(torch.int64).expand(tensor.shape))

    def finite_rows(self, tensors, rows):
        if _is_exporting() or torch.jit.is_tracing() or any(map(torch.is_tensor, rows)):
            # Sizes may be known only at run time, when they are 64-bit integers; not
            # all formats let NaN through a maximum.
            rows = [
                count.to(torch.int64) if torch.is_tensor(count) else count
                for count in rows
            ]
            return super().finite_rows(tensors, rows)
        # NaN or infinite where an element is: one pass over memory, instead of four for
        # each element by itself.
        totals = [
            _totals_of_rows(tensor.detach(), count, in_parts=tensor.is_cuda)
            for tensor, count in zip(tensors, rows, strict=True)
            if tensor.is_floating_point() and tensor.numel()
        ]
        if not totals:
            return torch.ones(1, dtype=torch.bool, device=tensors[0].device)
        most = max(map(len, totals))
        totals = [total.expand(most, -1) for total in totals]
        return torch.isfinite(torch.cat(totals, dim=1)).all(dim=1)

    @staticmethod
    def noise_state():
        """The states of PyTorch's global generators, which Keras uses if a layer has no
        seed: a list of tensors."""
        return [
            torch.get_rng_state(),
            *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []),
        ]

    @staticmethod
    def set_noise_state(state):
        on_cpu, *on_gpus = state
        torch.set_rng_state(on_cpu)
        if on_gpus:
            torch.cuda.set_rng_state_all(on_gpus)

    @contextlib.contextmanager
    def repeated_noise(self, state):
        before = self.noise_state()
        self.set_noise_state(state)
        try:
            yield
        finally:
            self.set_noise_state(before)

    def no_gradient(self):
        """A context in which autograd records nothing, so that no activation is
        stored."""
        return torch.no_grad()

    def grad_enabled(self):
        """Whether autograd is on."""
        return torch.is_grad_enabled() and not _is_exporting()

    def is_differentiated(self, training):
        """Whether autograd is on, which users turn off on purpose."""
        return self.grad_enabled()

    def detached(self, function, *args):
        with torch.no_grad():
            return function(*args)

    def untraced(self, function):
        """Runs a function without compilation inside a step that `torch.compile`
        compiles.

        That compiler would compile a new program for each path through a network, and
        its programs ignore the modes in which the walk runs. Parts that are worth
        compiling are passed to `elementwise`.
        """
        return torch.compiler.disable(function)

    def multiply_add(self, x, factor, y):
        """x · factor + y, in one pass over memory if x is a tensor and the others are
        numbers or tensors of its dtype."""
        tensors = [value for value in (x, factor, y) if torch.is_tensor(value)]
        # Not all exporters know operations with factors.
        is_plain = _is_exporting() or not torch.is_tensor(x)
        if is_plain or any(value.dtype != x.dtype for value in tensors):
            return super().multiply_add(x, factor, y)
        if torch.is_tensor(factor):
            return torch.addcmul(y, x, factor) if torch.is_tensor(y) else x * factor + y
        if torch.is_tensor(y):
            return torch.add(y, x, alpha=factor)
        return torch.rsub(x, y, alpha=-factor)

    def layout_kept(self):
        """A reentrant context for Keras layers on `channels_last` data.

        Keras copies such data once to change the axis order to PyTorch's, and again to
        restore the memory layout, which PyTorch's convolutions accept anyway. This
        context avoids both copies.
        """
        return (
            contextlib.nullcontext() if torch.compiler.is_compiling() else LayoutKept()
        )


class _Graft(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, slopes, *onto):
        ctx.save_for_backward(*filter(torch.is_tensor, slopes))
        ctx.numbers = [None if torch.is_tensor(slope) else slope for slope in slopes]
        return value.detach()

    @staticmethod
    def backward(ctx, upstream):
        # Read once: torch.utils.checkpoint, used by keras.RematScope, returns saved
        # tensors only once.
        saved = iter(ctx.saved_tensors)
        slopes = [next(saved) if number is None else number for number in ctx.numbers]
        pairs = zip(slopes, ctx.needs_input_grad[2:], strict=True)
        return (
            None,
            None,
            *(_times(upstream, slope) if needed else None for slope, needed in pairs),
        )


def _times(upstream, slope):
    return upstream if isinstance(slope, float) and slope == 1.0 else upstream * slope


class _WithBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, backward, values, saved, *inputs):
        # Autograd may run the backward pass in another thread.
        ctx.run = functools.partial(contextvars.copy_context().run, backward)
        ctx.save_for_backward(*saved)
        return tuple(value.detach() for value in values)

    @first_derivative_only
    def backward(ctx, *upstream):
        wanted, saved = ctx.needs_input_grad[3:], ctx.saved_tensors
        # Integers stand for tensors that the function makes of them.
        leaves = [
            tensor.detach().requires_grad_(needed and tensor.is_floating_point())
            for tensor, needed in zip(saved, wanted, strict=False)
        ]
        # It may run layers, after the call of their model.
        with keras_internals.in_steps():
            gradients = ctx.run(leaves, list(saved[len(wanted) :]), list(upstream))
        return None, None, None, *gradients


def _totals_of_rows(tensor, rows, in_parts):
    """For each row of a tensor a number that is NaN or infinite where an element is.

    On CPUs it is the sum, since PyTorch takes eight times as long to find the largest
    value there. Finite elements have an infinite one only if they are nearly infinite
    themselves.

    Args:
        tensor: Tensor.
        rows: Integer, the number of rows: equal parts of the tensor.
        in_parts: Boolean, whether to take the largest absolute value of each part of a
            row by itself, where a row has axes. A compiler for GPUs then needs no
            second kernel. On CPUs it takes longer.

    Returns:
        Tensor `(rows, parts)`.
    """
    if in_parts and tensor.ndim > 2 and len(tensor) == rows:
        return torch.linalg.vector_norm(
            tensor, math.inf, dim=tuple(range(2, tensor.ndim))
        )
    flat = tensor.reshape(rows, -1)
    if tensor.is_cuda:
        return torch.linalg.vector_norm(flat, math.inf, dim=1, keepdim=True)
    is_wide = tensor.dtype in (torch.float32, torch.float64)
    return flat.sum(dim=1, keepdim=True, dtype=None if is_wide else torch.float32)
