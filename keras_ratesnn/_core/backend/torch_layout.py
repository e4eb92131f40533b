"""Keras' layers on images without copies of the data, on PyTorch."""

import torch
from torch.overrides import TorchFunctionMode

# PyTorch's compiler uses these two operations; they are not promised.
_PACKING = torch.backends.mkldnn.is_available() and all(
    hasattr(torch.ops.mkldnn, name) for name in ("_convolution_pointwise", "_reorder_convolution_weight")
)
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class LayoutKept(TorchFunctionMode):
    """Answers calls of `Tensor.contiguous` by the tensor itself, or by what an earlier call on the same weight gave.

    Args:
        repeated: Boolean, whether the same convolutions are to be run again and again. Those without gradient then keep
            their kernels in the order in which the processor's library computes, which it would make anew for each.
    """

    def __init__(self, repeated):
        super().__init__()
        self.repeated = repeated
        self.reordered = {}
        self.kernels = set()
        self.packed = {}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.conv2d and self.repeated and not torch.is_grad_enabled():
            return self._convolution(*args, **kwargs)
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
        key = id(weight), weight._version, view, kwargs.get("memory_format")
        if key not in self.reordered:
            # With the weight, so that no other can come to have its id.
            values = _reordered(tensor.detach(), **kwargs)
            self.reordered[key] = weight, values
            self.kernels.add(values.data_ptr())
        return _Reordered.apply(tensor, self.reordered[key][1])

    def _convolution(self, inputs, kernel, bias=None, stride=1, padding=0, dilation=1, groups=1):
        # A kernel of our own stays in its place, as long as the mode lives, and as it is.
        own = kernel.data_ptr() in self.kernels
        if not (_PACKING and own and inputs.device.type == "cpu" and inputs.dtype == torch.float32):
            return torch.conv2d(inputs, kernel, bias, stride, padding, dilation, groups)
        geometry = (_pair(padding), _pair(stride), _pair(dilation), groups)
        key = kernel.data_ptr(), inputs.shape, *map(str, geometry)
        if key not in self.packed:
            self.packed[key] = torch.ops.mkldnn._reorder_convolution_weight(kernel, *geometry, list(inputs.shape))
        return torch.ops.mkldnn._convolution_pointwise(inputs, self.packed[key], bias, *geometry, "none", [], "")


class _Reordered(torch.autograd.Function):
    """A tensor whose values are known to be, in another order in memory, those of `values`."""

    @staticmethod
    def forward(ctx, tensor, values):
        return values.view_as(values)

    @staticmethod
    def backward(ctx, upstream):
        return upstream, None


def _pair(value):
    return [value, value] if isinstance(value, int) else list(value)


def _reordered(tensor, memory_format=torch.contiguous_format):
    """`tensor.contiguous(memory_format=...)`; for a kernel of Keras, `(height, width, in, out)`, in half the time."""
    kernel = tensor.permute(2, 3, 1, 0) if memory_format == torch.channels_last else None
    if kernel is None or not kernel.is_contiguous():
        return tensor.contiguous(memory_format=memory_format)
    # All that PyTorch's order needs is a transposition of a matrix, which it has a fast loop for.
    height, width, inputs, outputs = kernel.shape
    transposed = kernel.reshape(-1, outputs).t().contiguous()
    return transposed.reshape(outputs, height, width, inputs).permute(0, 3, 1, 2)
