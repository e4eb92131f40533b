"""The backend functions on PyTorch; `keras_ratesnn.backend` says what each is for."""

import contextlib
import math

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class _Graft(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, onto, slope):
        if torch.is_tensor(slope):
            ctx.save_for_backward(slope)
        else:
            ctx.slope = slope
        return value.view_as(value)

    @staticmethod
    def backward(ctx, upstream):
        slope = ctx.saved_tensors[0] if ctx.saved_tensors else ctx.slope
        return None, upstream if isinstance(slope, float) and slope == 1.0 else upstream * slope, None


def graft(value, onto, slope):
    """Returns `value`; its derivative is `slope` with respect to `onto`, and none with respect to anything else.

    Args:
        value: Tensor, the result.
        onto: Tensor of the same shape and dtype, what the result is differentiated by. Its own value is not used.
        slope: Tensor of the same shape and dtype, or a float.

    Returns:
        Tensor equal to `value`.
    """
    return _Graft.apply(value.detach(), onto, slope)


def no_gradient():
    """A context in which autograd records nothing, so that no activation is kept."""
    return torch.no_grad()


def records_gradient():
    """Whether autograd is on."""
    return torch.is_grad_enabled()


def derivative_only():
    """A context for results whose derivative is wanted and whose value is not.

    Eager PyTorch has no compiler to drop the value. Here autograd records as always, but the costly last operations of
    what runs inside are put off, and never run unless a value is needed after all.
    """
    # A compiler drops the value by itself, and could not trace the mode.
    return contextlib.nullcontext() if torch.compiler.is_compiling() else _PutOff()


def unrolled_steps(with_gradient):
    """No limit: PyTorch runs step by step."""
    return math.inf


def together(tensors):
    """The tensors as they are: they have been computed."""
    return tensors


def multiply_add(x, factor, y):
    """x · factor + y, in one pass over memory where x is a tensor, and the others are numbers or tensors of its dtype."""
    tensors = [value for value in (x, factor, y) if torch.is_tensor(value)]
    if not torch.is_tensor(x) or any(value.dtype != x.dtype for value in tensors):
        return x * factor + y
    if torch.is_tensor(factor):
        return torch.addcmul(y, x, factor) if torch.is_tensor(y) else x * factor + y
    return torch.add(y, x, alpha=factor) if torch.is_tensor(y) else torch.rsub(x, y, alpha=-factor)


def layout_kept():
    """A context for layers of Keras on `channels_last` data, which may be entered again and again.

    Keras makes PyTorch's order of axes of such data by a copy, and the memory order of the data, which PyTorch's
    convolutions take as it is, by a second one. Here the data stay where they are, and a kernel, which does change its
    order, does so once for all steps.
    """
    return contextlib.nullcontext() if torch.compiler.is_compiling() else _LayoutKept()


_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class _LayoutKept(TorchFunctionMode):
    """Answers calls of `Tensor.contiguous` by the tensor itself, or by what an earlier call on the same weight gave."""

    def __init__(self):
        super().__init__()
        self.weights = {}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is not torch.Tensor.contiguous:
            return function(*args, **kwargs)
        (tensor,) = args
        layout = _CHANNELS_LAST.get(tensor.ndim)
        if not kwargs and layout is not None and tensor.is_contiguous(memory_format=layout):
            return tensor
        weight = tensor._base
        if not isinstance(weight, torch.nn.Parameter):
            return function(*args, **kwargs)
        view = tensor.shape, tensor.stride(), tensor.storage_offset()
        key = id(weight), weight._version, view, torch.is_grad_enabled(), kwargs.get("memory_format")
        if key not in self.weights:
            # With the weight, so that no other can come to have its id.
            self.weights[key] = weight, function(*args, **kwargs)
        return self.weights[key][1]


_aten = torch.ops.aten
# Operations whose backward needs their inputs but not their output, ...
_CONTRACTIONS = {_aten.convolution.default, _aten.mm.default, _aten.addmm.default, _aten.bmm.default}
# ... and those whose backward needs neither.
_LINEAR = {_aten.add.Tensor, _aten.clone.default, _aten._to_copy.default}


class _PutOff(TorchDispatchMode):
    """Hands out memory that is not filled in for the results of `_CONTRACTIONS` and of `_LINEAR` operations on those.

    Autograd works above this mode: it saves inputs and builds its graph as if the operations had run. As soon as any
    other operation reads such memory, or a contraction would save it, all that was put off is run, in order.
    """

    def __init__(self):
        super().__init__()
        self.pending = []
        self.unfilled = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        reads_unfilled = self.unfilled and any(
            isinstance(leaf, torch.Tensor) and _memory(leaf) in self.unfilled
            for leaf in pytree.arg_tree_leaves(*args, **kwargs)
        )
        if operation in _CONTRACTIONS or (operation in _LINEAR and reads_unfilled):
            if reads_unfilled and operation not in _LINEAR:
                self._run_pending()
            return self._put_off(operation, args, kwargs)
        if reads_unfilled and not operation.is_view and operation is not _aten._unsafe_view.default:
            self._run_pending()
        return operation(*args, **kwargs)

    def _put_off(self, operation, args, kwargs):
        meta_args, meta_kwargs = pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.to("meta"), (args, kwargs))
        meta_kwargs.pop("device", None)
        shape = operation(*meta_args, **meta_kwargs)
        device = next(leaf.device for leaf in pytree.arg_tree_leaves(*args) if isinstance(leaf, torch.Tensor))
        result = torch.empty_strided(shape.size(), shape.stride(), dtype=shape.dtype, device=device)
        self.pending.append((result, operation, args, kwargs))
        self.unfilled.add(_memory(result))
        return result

    def _run_pending(self):
        for result, operation, args, kwargs in self.pending:
            result.copy_(operation(*args, **kwargs))
        self.pending.clear()
        self.unfilled.clear()


def _memory(tensor):
    return tensor.untyped_storage().data_ptr()
