"""Runs Keras' layers on images without copying the data, on PyTorch."""

import torch
from torch.overrides import TorchFunctionMode

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class LayoutKept(TorchFunctionMode):
    """Makes `Tensor.contiguous` return the tensor itself if it is contiguous in memory layout `channels_last`."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is not torch.Tensor.contiguous:
            return function(*args, **kwargs)
        (tensor,) = args
        layout = _CHANNELS_LAST.get(tensor.ndim)
        if not kwargs and layout is not None and tensor.is_contiguous(memory_format=layout):
            return tensor
        return _reordered(tensor, **kwargs)


def _reordered(tensor, memory_format=torch.contiguous_format):
    """`tensor.contiguous(memory_format=...)`, twice as fast for a Keras kernel `(height, width, in, out)`."""
    kernel = tensor.permute(2, 3, 1, 0) if memory_format == torch.channels_last else None
    if kernel is None or not kernel.is_contiguous():
        return tensor.contiguous(memory_format=memory_format)
    # PyTorch's layout only needs a matrix transposition, which is fast.
    height, width, inputs, outputs = kernel.shape
    transposed = kernel.reshape(-1, outputs).t().contiguous()
    return transposed.reshape(outputs, height, width, inputs).permute(0, 3, 1, 2)
