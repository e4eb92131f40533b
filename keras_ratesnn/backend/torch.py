"""The backend functions on PyTorch; `keras_ratesnn.backend` says what each is for."""

import contextlib

import torch


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
    """A context for results whose derivative is wanted and whose value is not."""
    return contextlib.nullcontext()
