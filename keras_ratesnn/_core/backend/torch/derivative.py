"""What autograd differentiates, and backward passes that cannot be differentiated
again."""

import functools

import torch


def differentiable_outputs(outputs, upstream):
    """Those of the outputs that have a derivative, and their gradients: two lists."""
    pairs = [
        (output, gradient)
        for output, gradient in zip(outputs, upstream, strict=True)
        if output.requires_grad
    ]
    return [output for output, _ in pairs], [gradient for _, gradient in pairs]


def first_derivative_only(backward):
    """Decorates the `backward` of a `torch.autograd.Function`: raises an error if its
    result is to be differentiated.

    PyTorch's `once_differentiable` raises one only when that happens, and none if the
    upstream gradient is a constant: what passes through the function would be missing
    from a second derivative, silently (docs/upstream.md, once_differentiable).
    """
    once = torch.autograd.function.once_differentiable(backward)

    @functools.wraps(backward)
    def checked(ctx, *upstream):
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError(
                "On PyTorch, recorded graphs, compiled loops, batch normalization, and "
                "SLTT and OTTT in single-step mode have "
                "first derivatives only. Received: a backward pass with "
                "create_graph=True. Use model.compile(..., "
                'jit_compile=False), step_mode="multi", and a network without batch '
                "normalization."
            )
        return once(ctx, *upstream)

    return staticmethod(checked)
