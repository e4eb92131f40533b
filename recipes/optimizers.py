"""The optimizers of the recipes."""

import keras

MOMENTUM = 0.9
RESTART = 0.5
"""A warm restart starts at this fraction of the initial learning rate."""

WARM_UP = 0.05
"""The fraction of the steps in which AdamW's learning rate rises."""
LARGEST_NORM = 10.0
"""Of AdamW's gradient."""


def sgd_with_cosine_decay(network, steps, learning_rate, weight_decay, restart_step=None):
    """SGD with momentum 0.9, cosine decay of the learning rate to 0, and weight decay of kernels.

    Args:
        network: The Keras model that is trained; it must be built.
        steps: Integer, the number of steps in which the learning rate decays to 0.
        learning_rate: Float, the initial learning rate.
        weight_decay: Float, as in Keras: each step multiplies a kernel by `1 - learning_rate * weight_decay`.
        restart_step: Integer or None: the step at which the learning rate, which has decayed to 0, restarts at half of its
            initial value, to decay to 0 in the remaining steps (a warm restart: Loshchilov and Hutter, "SGDR", 2017).
            Defaults to `None`.

    Returns:
        A `keras.optimizers.SGD`.
    """
    if restart_step is None:
        schedule = keras.optimizers.schedules.CosineDecay(learning_rate, decay_steps=steps)
    else:
        schedule = keras.optimizers.schedules.CosineDecayRestarts(
            learning_rate, restart_step, t_mul=(steps - restart_step) / restart_step, m_mul=RESTART
        )
    optimizer = keras.optimizers.SGD(schedule, momentum=MOMENTUM, weight_decay=weight_decay)
    _exclude_all_but_kernels(optimizer, network)
    return optimizer


def adamw_with_cosine_decay(network, steps, learning_rate, weight_decay):
    """AdamW with a linear warm-up, then cosine decay of the learning rate to 0; for the arguments see `sgd_with_cosine_decay`.

    Gradients are clipped to a global norm, which matters in the first steps of detectors.
    """
    warm_up = max(1, round(WARM_UP * steps))
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps=max(1, steps - warm_up), warmup_target=learning_rate, warmup_steps=warm_up
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=weight_decay, global_clipnorm=LARGEST_NORM)
    _exclude_all_but_kernels(optimizer, network)
    return optimizer


def _exclude_all_but_kernels(optimizer, network):
    optimizer.exclude_from_weight_decay(var_list=[v for v in network.trainable_variables if not v.name.endswith("kernel")])


BY_NAME = {"sgd": sgd_with_cosine_decay, "adamw": adamw_with_cosine_decay}
"""The optimizers by the names used in recipes."""


def from_the_authors(learning_rate, weight_decay, timesteps):
    """Converts the learning rate and weight decay of the authors' program to those of this library.

    Their program differs in two ways. First, it divides the gradient by T, but not the weight decay. Ours gives the same
    weights with a learning rate divided by T and a weight decay multiplied by T. Second, their weight decay is part of the
    gradient. It enters the momentum and so counts `1 / (1 - momentum)` = 10 times in the long run. Keras' weight decay
    acts directly on the kernel.

    Args:
        learning_rate: Float, that of the authors.
        weight_decay: Float, that of the authors, as in PyTorch.
        timesteps: Integer T.

    Returns:
        Tuple `(learning_rate, weight_decay)` of floats, for `sgd_with_cosine_decay`.
    """
    return learning_rate / timesteps, weight_decay * timesteps / (1 - MOMENTUM)
