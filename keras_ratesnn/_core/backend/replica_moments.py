"""Mean and variance over the batches of all replicas."""

from keras import ops


def merged(replicas, size, mean, variance):
    """Mean and variance of the elements of all replicas.

    Args:
        replicas: `Replicas` of a backend.
        size: Number or scalar tensor: the number of elements of this replica, or the sum of their weights.
        mean: Tensor, the mean of these elements.
        variance: Tensor of the same shape.

    Source: Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1982.
    """
    if replicas.count() == 1:
        return mean, variance
    size = ops.broadcast_to(ops.cast(size, mean.dtype), ops.shape(mean))
    # A replica may have no part in a small batch; the mean of nothing is not a number.
    own = [ops.where(size > 0.0, moment, 0.0) for moment in (mean, variance)]
    parts = replicas.gather(ops.stack([size, *own]))
    sizes, means, variances = parts[:, 0], parts[:, 1], parts[:, 2]
    total = ops.sum(sizes, axis=0)
    shares = sizes / ops.where(total > 0.0, total, 1.0)
    mean = ops.sum(shares * means, axis=0)
    return mean, ops.sum(shares * (variances + ops.square(means - mean)), axis=0)
