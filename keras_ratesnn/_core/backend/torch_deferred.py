"""Defers operations whose result may never be read; eager PyTorch has no compiler that drops them."""

import functools
from typing import NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from keras_ratesnn._core import tree

_aten = torch.ops.aten
# Operations whose backward needs their inputs but not their output, ...
_CONTRACTIONS = {_aten.convolution.default, _aten.mm.default, _aten.addmm.default, _aten.bmm.default}
# ... and those whose backward needs neither.
_LINEAR = {_aten.add.Tensor, _aten.clone.default, _aten._to_copy.default}


class Deferred(TorchDispatchMode):
    """Returns uninitialised memory for the results of `_CONTRACTIONS`, and of `_LINEAR` operations on them.

    Autograd works above this mode: it saves inputs and builds its graph as if the operations had run. As soon as any other
    operation reads such memory, or a contraction would save it, all deferred operations are run in order.
    """

    def __init__(self):
        super().__init__()
        self.pending = []
        self.unfilled = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        reads_unfilled = self.unfilled and any(_memory(tensor) in self.unfilled for tensor in _tensors_in(args, kwargs))
        if operation in _CONTRACTIONS or (operation in _LINEAR and reads_unfilled):
            if reads_unfilled and operation not in _LINEAR:
                self._run_pending()
            return self._defer(operation, args, kwargs)
        if reads_unfilled and not operation.is_view and operation is not _aten._unsafe_view.default:
            self._run_pending()
        return operation(*args, **kwargs)

    def _defer(self, operation, args, kwargs):
        described = tuple(map(_described, args)), tuple((name, _described(value)) for name, value in kwargs.items())
        size, stride, dtype = _described_result(operation, *described)
        result = torch.empty_strided(size, stride, dtype=dtype, device=_tensors_in(args, kwargs)[0].device)
        self.pending.append((result, operation, args, kwargs))
        self.unfilled.add(_memory(result))
        return result

    def _run_pending(self):
        for result, operation, args, kwargs in self.pending:
            result.copy_(operation(*args, **kwargs))
        self.pending.clear()
        self.unfilled.clear()


class _Description(NamedTuple):
    """The properties of a tensor that determine the shape of results."""

    size: tuple
    stride: tuple
    dtype: torch.dtype

    def without_memory(self):
        return torch.empty_strided(self.size, self.stride, dtype=self.dtype, device="meta")


def _described(argument):
    """A hashable description of an argument of an operation."""
    if isinstance(argument, torch.Tensor):
        return _Description(tuple(argument.shape), argument.stride(), argument.dtype)
    return tuple(argument) if isinstance(argument, list) else argument


@functools.lru_cache(maxsize=4096)
def _described_result(operation, args, kwargs):
    """The description of the result of an operation, cached because PyTorch takes longer to find it than to run a small one."""

    def without_memory(argument):
        return argument.without_memory() if isinstance(argument, _Description) else argument

    kwargs = {name: without_memory(value) for name, value in kwargs if name != "device"}
    return _described(operation(*map(without_memory, args), **kwargs))


def _tensors_in(args, kwargs):
    """The tensors among arguments, including those in lists."""
    return [leaf for leaf in tree.flatten([args, kwargs]) if isinstance(leaf, torch.Tensor)]


def _memory(tensor):
    return tensor.untyped_storage().data_ptr()
