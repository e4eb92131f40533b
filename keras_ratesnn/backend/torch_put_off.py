"""Results whose value may never be read, on PyTorch: eager PyTorch has no compiler to drop what computes them."""

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
# Operations whose backward needs their inputs but not their output, ...
_CONTRACTIONS = {_aten.convolution.default, _aten.mm.default, _aten.addmm.default, _aten.bmm.default}
# ... and those whose backward needs neither.
_LINEAR = {_aten.add.Tensor, _aten.clone.default, _aten._to_copy.default}


class PutOff(TorchDispatchMode):
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
