"""Filters of channels over time for XLA, shared by JAX and TensorFlow, by matrix
products.

Its depthwise convolutions take up to a hundred times as long on CPUs.
"""

from keras import ops


def filter_in_time(inputs, kernel):
    """See `base`. Steps are divided into blocks, each of which depends on itself and on
    the end of the one before."""
    timesteps = inputs.shape[1]
    channels = kernel.shape[-1]
    before = kernel.shape[0] - 1
    number = max(1, timesteps // (2 * before))
    size = -(-timesteps // number)
    padded = ops.pad(inputs, [[0, 0], [0, number * size - timesteps], [0, 0]])
    blocks = ops.reshape(padded, (-1, number, size, channels))
    if number > 1:
        ends = ops.pad(blocks, [[0, 0], [1, 0], [0, 0], [0, 0]])[:, :-1, -before:]
        blocks = ops.concatenate([ends, blocks], axis=2)
    weights = _shifted(kernel, size)[:, -blocks.shape[2] :]
    filtered = ops.einsum("tjc,bnjc->bntc", weights, blocks)
    return ops.reshape(filtered, (-1, number * size, channels))[:, :timesteps]


def _shifted(kernel, size):
    """A kernel `(L, channels)` for each of so many outputs, each one step later:
    `(size, size + L - 1, channels)`."""
    taps, channels = kernel.shape
    # Rows that are one shorter than what is repeated begin one later each.
    repeated = ops.tile(ops.pad(kernel, [[0, size], [0, 0]]), (size, 1))
    return ops.reshape(
        repeated[: size * (size + taps - 1)], (size, size + taps - 1, channels)
    )
