"""Filters of channels over time on CPUs, by sums of shifted inputs: PyTorch's depthwise
convolutions take up to five times as long, with their derivatives."""

import torch

from keras_ratesnn._core.backend.torch.normalization import HALF


def filter_in_time(inputs, kernel):
    """See `base`; both in the same dtype. In half precision the sums are in float32."""
    wide = torch.float32 if inputs.dtype in HALF else inputs.dtype
    return _Filtered.apply(inputs.to(wide), kernel.to(wide)).to(inputs.dtype)


class _Filtered(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs, kernel):
        ctx.save_for_backward(inputs, kernel)
        *earlier, latest = kernel
        filtered = inputs * latest
        for lag, tap in enumerate(reversed(earlier), 1):
            filtered[:, lag:].addcmul_(inputs[:, :-lag], tap)
        return filtered

    @staticmethod
    def backward(ctx, upstream):
        # Operations with derivatives of their own: second derivatives are right.
        inputs, kernel = ctx.saved_tensors
        input_gradient = kernel_gradient = None
        if ctx.needs_input_grad[0]:
            input_gradient = _Filtered.apply(upstream.flip(1), kernel).flip(1)
        if ctx.needs_input_grad[1]:
            timesteps = inputs.shape[1]
            taps = []
            for lag in reversed(range(len(kernel))):
                earlier = inputs[:, : max(0, timesteps - lag)]
                taps.append((upstream[:, lag:] * earlier).sum((0, 1)))
            kernel_gradient = torch.stack(taps)
        return input_gradient, kernel_gradient
