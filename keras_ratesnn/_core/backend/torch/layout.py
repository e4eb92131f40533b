"""Runs Keras' layers on images without copying the data, on PyTorch, and around a fault
of PyTorch's in this layout."""

import torch
from torch.overrides import TorchFunctionMode

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class LayoutKept(TorchFunctionMode):
    """Makes `Tensor.contiguous` return the tensor itself if it is contiguous in memory
    layout `channels_last`."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.conv2d:
            return _convolved(*args, **kwargs)
        if function is not torch.Tensor.contiguous:
            return function(*args, **kwargs)
        (tensor,) = args
        layout = _CHANNELS_LAST.get(tensor.ndim)
        if (
            not kwargs
            and layout is not None
            and tensor.is_contiguous(memory_format=layout)
        ):
            return tensor
        return _reordered(tensor, **kwargs)


_SAFE_CHANNELS = 16
"""From this number of input channels on, PyTorch's strided 1x1 convolutions stay inside
of their memory on any CPU: its vectors have 8 numbers with AVX2 and 16 with AVX-512."""


def _convolved(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """`torch.conv2d`, with its arguments.

    On CPUs PyTorch 2.13's weight gradient of a strided 1x1 convolution with few input
    channels writes outside of its memory (docs/upstream.md, corrupts memory). Without
    the inputs that such a convolution skips, it is one without strides.
    """
    strides = [stride] * 2 if isinstance(stride, int) else stride
    is_pointwise = (
        input.ndim == 4
        and tuple(weight.shape[2:]) == (1, 1)
        and padding in (0, [0, 0], (0, 0))
    )
    if (
        is_pointwise
        and max(strides) > 1
        and input.shape[1] < _SAFE_CHANNELS
        and input.device.type == "cpu"
    ):
        input, stride = input[:, :, :: strides[0], :: strides[1]], 1
    return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)


def _reordered(tensor, memory_format=torch.contiguous_format):
    """`tensor.contiguous(memory_format=...)`, twice as fast for a Keras kernel
    `(height, width, in, out)`."""
    if memory_format == torch.channels_last_3d and torch.jit.is_tracing():
        # Changes no number, and the exporter to ONNX does not know it.
        return tensor
    kernel = (
        tensor.permute(2, 3, 1, 0) if memory_format == torch.channels_last else None
    )
    if kernel is None or not kernel.is_contiguous():
        return tensor.contiguous(memory_format=memory_format)
    # PyTorch's layout only needs a matrix transposition, which is fast.
    height, width, inputs, outputs = kernel.shape
    transposed = kernel.reshape(height * width * inputs, outputs).t().contiguous()
    return transposed.reshape(outputs, height, width, inputs).permute(0, 3, 1, 2)
