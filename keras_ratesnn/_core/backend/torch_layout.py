"""Runs Keras' layers on images without copying the data, on PyTorch."""

import torch
from torch.overrides import TorchFunctionMode

from keras_ratesnn._core.backend.torch_graph import is_recording

# PyTorch's compiler uses these two operations; they are not public API.
_PACKING = torch.backends.mkldnn.is_available() and all(
    hasattr(torch.ops.mkldnn, name) for name in ("_convolution_pointwise", "_reorder_convolution_weight")
)
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class LayoutKept(TorchFunctionMode):
    """Makes `Tensor.contiguous` return the tensor itself, or the result of an earlier call on the same weight.

    Args:
        repeated: Boolean, whether the same convolutions are run repeatedly. Convolutions without gradient then keep their
            kernels in the layout of the CPU library, which would otherwise convert them each time.
    """

    def __init__(self, repeated):
        super().__init__()
        self.repeated = repeated
        self.reordered = {}
        self.kernels = set()
        self.packed = {}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.conv2d and self.repeated and not torch.is_grad_enabled() and not is_recording():
            return self._convolution(*args, **kwargs)
        if function is not torch.Tensor.contiguous:
            return function(*args, **kwargs)
        (tensor,) = args
        layout = _CHANNELS_LAST.get(tensor.ndim)
        if not kwargs and layout is not None and tensor.is_contiguous(memory_format=layout):
            return tensor
        if is_recording():
            return _reordered(tensor, **kwargs)
        weight = tensor._base
        if not isinstance(weight, torch.nn.Parameter):
            return function(*args, **kwargs)
        view = tensor.shape, tensor.stride(), tensor.storage_offset()
        key = id(weight), weight._version, view, kwargs.get("memory_format")
        if key not in self.reordered:
            # Keeps a reference to the weight, so that its id is not reused.
            values = _reordered(tensor.detach(), **kwargs)
            self.reordered[key] = weight, values
            self.kernels.add(values.data_ptr())
        return _Reordered.apply(tensor, self.reordered[key][1])

    def _convolution(self, inputs, kernel, bias=None, stride=1, padding=0, dilation=1, groups=1):
        # A kernel created here stays unchanged at its address while the mode exists.
        own = kernel.data_ptr() in self.kernels
        if not (_PACKING and own and inputs.device.type == "cpu" and inputs.dtype == torch.float32):
            return torch.conv2d(inputs, kernel, bias, stride, padding, dilation, groups)
        geometry = (_pair(padding), _pair(stride), _pair(dilation), groups)
        key = kernel.data_ptr(), inputs.shape, *map(str, geometry)
        if key not in self.packed:
            self.packed[key] = torch.ops.mkldnn._reorder_convolution_weight(kernel, *geometry, list(inputs.shape))
        return torch.ops.mkldnn._convolution_pointwise(inputs, self.packed[key], bias, *geometry, "none", [], "")


class _Reordered(torch.autograd.Function):
    """Replaces a tensor by `values`, the same values in another memory layout."""

    @staticmethod
    def forward(ctx, tensor, values):
        return values.view_as(values)

    @staticmethod
    def backward(ctx, upstream):
        return upstream, None


def _pair(value):
    return [value, value] if isinstance(value, int) else list(value)


def _reordered(tensor, memory_format=torch.contiguous_format):
    """`tensor.contiguous(memory_format=...)`, twice as fast for a Keras kernel `(height, width, in, out)`."""
    kernel = tensor.permute(2, 3, 1, 0) if memory_format == torch.channels_last else None
    if kernel is None or not kernel.is_contiguous():
        return tensor.contiguous(memory_format=memory_format)
    # PyTorch's layout only needs a matrix transposition, which is fast.
    height, width, inputs, outputs = kernel.shape
    transposed = kernel.reshape(-1, outputs).t().contiguous()
    return transposed.reshape(outputs, height, width, inputs).permute(0, 3, 1, 2)
