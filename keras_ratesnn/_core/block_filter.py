"""Filters over time by matrix products.

XLA's depthwise convolutions take up to a hundred times as long on CPUs, and sums of
shifted inputs, where all channels share a long filter, up to fifty times.
"""

from keras import ops

_LEAST_BLOCK = 32
"""Fewer steps are not divided."""


def filter_in_time(inputs, kernel):
    """As `filter_in_time` of backends; with a kernel `(L, 1)`, L >= 1, all channels are
    filtered by the same.

    Steps are divided into blocks, each of which depends on itself and on the end of the
    one before.
    """
    _, timesteps, channels = inputs.shape
    before = kernel.shape[0] - 1
    number = max(1, timesteps // max(_LEAST_BLOCK, 2 * before))
    size = -(-timesteps // number)
    padded = ops.pad(inputs, [[0, 0], [0, number * size - timesteps], [0, 0]])
    blocks = ops.reshape(padded, (-1, number, size, channels))
    if number > 1 and before:
        ends = ops.pad(blocks, [[0, 0], [1, 0], [0, 0], [0, 0]])[:, :-1, -before:]
        blocks = ops.concatenate([ends, blocks], axis=2)
    weights = _shifted(kernel, size)[:, -blocks.shape[2] :]
    # Not ops.matmul, which reduces float64 to float32 on PyTorch.
    if kernel.shape[-1] == 1:
        filtered = ops.einsum("tj,bnjc->bntc", weights[..., 0], blocks)
    else:
        filtered = ops.einsum("tjc,bnjc->bntc", weights, blocks)
    return ops.reshape(filtered, (-1, number * size, channels))[:, :timesteps]


def _shifted(kernel, size):
    """A kernel `(L, channels)` for each of `size` outputs, each one step later:
    `(size, size + L - 1, channels)`."""
    taps, channels = kernel.shape
    # Rows that are one shorter than what is repeated begin one later each.
    repeated = ops.tile(ops.pad(kernel, [[0, size], [0, 0]]), (size, 1))
    return ops.reshape(
        repeated[: size * (size + taps - 1)], (size, size + taps - 1, channels)
    )
