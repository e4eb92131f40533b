"""Batch normalisation with PyTorch's own kernels: a few passes over memory, instead of
a dozen with plain operations."""

import torch

from keras_ratesnn._core.backend.torch.derivative import first_derivative_only

HALF = (torch.float16, torch.bfloat16)
"""Dtypes that are converted to float32 for sums and membranes."""


def normalize(inputs, axis, gamma, beta, epsilon):
    """Normalises a batch with its own statistics; see `plain_normalization`."""
    outputs, mean, inverse_deviation = _Normalized.apply(
        _channels_second(inputs, axis), gamma, beta, epsilon
    )
    variance = torch.clamp(inverse_deviation**-2 - epsilon, min=0.0)
    return _channels_back(outputs, axis, inputs.shape), mean, variance


def normalize_as(inputs, axis, gamma, beta, mean, variance, epsilon, weights=None):
    """Normalises with given statistics, differentiated as if they were those of the
    batch; see `plain_normalization`.

    `weights` have one number for each row.
    """
    inverse_deviation = torch.rsqrt(variance + epsilon)
    outputs = _NormalizedAs.apply(
        _channels_second(inputs, axis), gamma, beta, mean, inverse_deviation, weights
    )
    return _channels_back(outputs, axis, inputs.shape)


class _Normalized(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs, gamma, beta, epsilon):
        # Without parameters the kernel would return statistics in the dtype of the
        # inputs, which may be half precision.
        factor = (
            torch.ones(inputs.shape[1], device=inputs.device)
            if gamma is beta is None and inputs.dtype in HALF
            else gamma
        )
        outputs, *statistics = torch.native_batch_norm(
            inputs, factor, beta, None, None, True, 0.0, epsilon
        )
        ctx.save_for_backward(inputs, gamma, *statistics)
        ctx.mark_non_differentiable(*statistics)
        return outputs, *statistics

    @first_derivative_only
    def backward(ctx, upstream, *_):
        return *_chosen(ctx, _backward(upstream, *ctx.saved_tensors)), None


class _NormalizedAs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs, gamma, beta, mean, inverse_deviation, weights):
        ctx.save_for_backward(inputs, gamma, mean, inverse_deviation, weights)
        scale = inverse_deviation if gamma is None else inverse_deviation * gamma
        shift = -mean * scale if beta is None else beta - mean * scale
        return torch.addcmul(
            _broadcast(shift, inputs), inputs.to(mean.dtype), _broadcast(scale, inputs)
        ).to(inputs.dtype)

    @first_derivative_only
    def backward(ctx, upstream):
        inputs, gamma, mean, inverse_deviation, weights = ctx.saved_tensors
        saved = inputs, gamma, mean, inverse_deviation
        if weights is None:
            gradients = _gradients_of_equal_rows(upstream, *saved)
        else:
            gradients = _gradients_of_weighted_rows(upstream, *saved, weights)
        return *_chosen(ctx, gradients), None, None, None


def _gradients_of_equal_rows(upstream, inputs, gamma, mean, inverse_deviation):
    input_gradient, gamma_gradient, beta_gradient = _backward(
        upstream, inputs, gamma, mean, inverse_deviation
    )
    # The kernel assumes that `mean` is the mean of the inputs.
    own_mean = inputs.mean(
        [axis for axis in range(inputs.ndim) if axis != 1], dtype=mean.dtype
    )
    factor = (
        (own_mean - mean) * inverse_deviation**2 * (inputs.shape[1] / inputs.numel())
    )
    # What does not need the gradient comes first: a recorded graph computes it for all
    # layers at once.
    factor = factor if gamma is None else factor * gamma
    if inputs.dtype in HALF:
        # PyTorch is slow at products of two precisions.
        input_gradient.add_(
            _broadcast((factor * gamma_gradient).to(inputs.dtype), inputs)
        )
    else:
        input_gradient.addcmul_(
            _broadcast(factor, inputs), _broadcast(gamma_gradient, inputs)
        )
    return input_gradient, gamma_gradient, beta_gradient


def _gradients_of_weighted_rows(
    upstream, inputs, gamma, mean, inverse_deviation, weights
):
    # δ = ∂L/∂ĉ; ω_i are the shares of the elements, μ_c is their mean:
    # ∂L/∂c_i = γ/σ (δ_i − ω_i (Σ δ + (c_i − μ_c)/σ Σ δ ĉ))
    _, gamma_gradient, beta_gradient = _backward(
        upstream, inputs, gamma, mean, inverse_deviation, with_inputs=False
    )
    scale = inverse_deviation if gamma is None else inverse_deviation * gamma
    total = weights.sum()
    wide = inputs.to(mean.dtype)
    shares = weights.to(mean.dtype) / torch.where(total > 0.0, total, 1.0)
    own_mean = shares @ wide.flatten(2).mean(2) if inputs.ndim > 2 else shares @ wide
    slope = scale * inverse_deviation * gamma_gradient
    shares = shares[:, None] * (-inputs.shape[0] * inputs.shape[1] / inputs.numel())
    shape = (*inputs.shape[:2], *[1] * (inputs.ndim - 2))
    offset = (shares * (scale * beta_gradient - slope * own_mean)).reshape(shape)
    slope = (shares * slope).reshape(shape)
    input_gradient = torch.addcmul(offset, wide, slope).addcmul_(
        upstream.to(mean.dtype), _broadcast(scale, inputs)
    )
    return input_gradient.to(inputs.dtype), gamma_gradient, beta_gradient


def _backward(upstream, inputs, gamma, mean, inverse_deviation, with_inputs=True):
    """The gradients of inputs, unless `with_inputs=False`, γ and β."""
    if upstream.stride() != inputs.stride():
        # With different layouts the kernel mixes up elements if an image has one row or
        # one column (PyTorch 2.13).
        upstream = torch.empty_like(inputs, dtype=upstream.dtype).copy_(upstream)
    if gamma is None:
        gamma = torch.ones_like(mean)
    return torch.ops.aten.native_batch_norm_backward(
        upstream,
        inputs,
        gamma,
        None,
        None,
        mean,
        inverse_deviation,
        True,
        0.0,
        [with_inputs, True, True],
    )


def _chosen(ctx, gradients):
    return (
        gradient if needed else None
        for gradient, needed in zip(gradients, ctx.needs_input_grad, strict=False)
    )


def _broadcast(parameter, inputs):
    return parameter.reshape(-1, *([1] * (inputs.ndim - 2)))


def _channels_second(tensor, axis):
    """`(batch, channels, ...)`, in memory layout `channels_last` if there are three
    axes or more and the channels are last."""
    if tensor.ndim > 2 and axis % tensor.ndim == tensor.ndim - 1:
        tensor = tensor.reshape(tensor.shape[0], -1, *tensor.shape[-2:])
        axis = -1
    elif tensor.ndim > 4:
        tensor = tensor.movedim(axis, 1).flatten(2)
        axis = 1
    return tensor.movedim(axis, 1)


def _channels_back(tensor, axis, shape):
    """Reverts `_channels_second`: restores the given shape."""
    rank = len(shape)
    if rank > 2 and axis % rank == rank - 1:
        return tensor.movedim(1, -1).reshape(shape)
    if rank > 4:
        sizes = list(shape)
        sizes.insert(1, sizes.pop(axis % rank))
        tensor = tensor.reshape(sizes)
    return tensor.movedim(1, axis)
