"""Batch normalisation with PyTorch's own kernels: a few passes over memory, instead of a dozen with plain operations."""

import torch

from keras_ratesnn._core.backend.torch.derivative import first_derivative_only

HALF = (torch.float16, torch.bfloat16)
"""Dtypes that are converted to float32 for sums and membranes."""


def normalize(inputs, axis, gamma, beta, epsilon):
    """Normalises a batch with its own statistics; see `base`."""
    outputs, mean, inverse_deviation = _Normalized.apply(_channels_second(inputs, axis), gamma, beta, epsilon)
    variance = torch.clamp(inverse_deviation**-2 - epsilon, min=0.0)
    return _channels_back(outputs, axis, inputs.shape), mean, variance


def normalize_as(inputs, axis, gamma, beta, mean, variance, epsilon):
    """Normalises with given statistics, differentiated as if they were those of the batch; see `base`."""
    inverse_deviation = torch.rsqrt(variance + epsilon)
    outputs = _NormalizedAs.apply(_channels_second(inputs, axis), gamma, beta, mean, inverse_deviation)
    return _channels_back(outputs, axis, inputs.shape)


class _Normalized(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs, gamma, beta, epsilon):
        # Without parameters the kernel would return statistics in the dtype of the inputs, which may be half precision.
        factor = torch.ones(inputs.shape[1], device=inputs.device) if gamma is beta is None and inputs.dtype in HALF else gamma
        outputs, *statistics = torch.native_batch_norm(inputs, factor, beta, None, None, True, 0.0, epsilon)
        ctx.save_for_backward(inputs, gamma, *statistics)
        ctx.mark_non_differentiable(*statistics)
        return outputs, *statistics

    @first_derivative_only
    def backward(ctx, upstream, *_):
        return *_chosen(ctx, _backward(upstream, *ctx.saved_tensors)), None


class _NormalizedAs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs, gamma, beta, mean, inverse_deviation):
        ctx.save_for_backward(inputs, gamma, mean, inverse_deviation)
        scale = inverse_deviation if gamma is None else inverse_deviation * gamma
        shift = -mean * scale if beta is None else beta - mean * scale
        return torch.addcmul(_broadcast(shift, inputs), inputs.to(mean.dtype), _broadcast(scale, inputs)).to(inputs.dtype)

    @first_derivative_only
    def backward(ctx, upstream):
        inputs, gamma, mean, inverse_deviation = ctx.saved_tensors
        of_inputs, of_gamma, of_beta = _backward(upstream, inputs, gamma, mean, inverse_deviation)
        # The kernel assumes that `mean` is the mean of the inputs.
        own_mean = inputs.mean([axis for axis in range(inputs.ndim) if axis != 1], dtype=mean.dtype)
        factor = (own_mean - mean) * inverse_deviation**2 * (inputs.shape[1] / inputs.numel())
        # What does not need the gradient comes first: a recorded graph computes it for all layers at once.
        factor = factor if gamma is None else factor * gamma
        if inputs.dtype in HALF:
            # PyTorch is slow at products of two precisions.
            of_inputs.add_(_broadcast((factor * of_gamma).to(inputs.dtype), inputs))
        else:
            of_inputs.addcmul_(_broadcast(factor, inputs), _broadcast(of_gamma, inputs))
        return *_chosen(ctx, (of_inputs, of_gamma, of_beta)), None, None


def _backward(upstream, inputs, gamma, mean, inverse_deviation):
    """The gradients of inputs, γ and β."""
    if upstream.stride() != inputs.stride():
        # With different layouts the kernel mixes up elements if an image has one row or one column (PyTorch 2.13).
        upstream = torch.empty_like(inputs, dtype=upstream.dtype).copy_(upstream)
    if gamma is None:
        gamma = torch.ones_like(mean)
    return torch.ops.aten.native_batch_norm_backward(
        upstream, inputs, gamma, None, None, mean, inverse_deviation, True, 0.0, [True, True, True]
    )


def _chosen(ctx, gradients):
    return (gradient if needed else None for gradient, needed in zip(gradients, ctx.needs_input_grad, strict=False))


def _broadcast(parameter, inputs):
    return parameter.reshape(-1, *([1] * (inputs.ndim - 2)))


def _channels_second(tensor, axis):
    """`(batch, channels, ...)`, in memory layout `channels_last` if there are three axes or more and the channels are last."""
    if tensor.ndim > 2 and axis % tensor.ndim == tensor.ndim - 1:
        tensor, axis = tensor.reshape(tensor.shape[0], -1, *tensor.shape[-2:]), -1
    elif tensor.ndim > 4:
        tensor, axis = tensor.movedim(axis, 1).flatten(2), 1
    return tensor.movedim(axis, 1)


def _channels_back(tensor, axis, shape):
    """Reverts `_channels_second`: restores the given shape."""
    rank = len(shape)
    if rank > 2 and axis % rank == rank - 1:
        return tensor.movedim(1, -1).reshape(shape)
    if rank > 4:
        others = [size for index, size in enumerate(shape) if index not in (0, axis % rank)]
        tensor = tensor.reshape(shape[0], shape[axis], *others)
    return tensor.movedim(1, axis)
