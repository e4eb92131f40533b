"""How the recipes' networks are optimised."""

import keras

MOMENTUM = 0.9
RESTART = 0.5
"""After a warm restart the learning rate falls from this share of what it began with."""


def sgd_with_cosine_decay(network, steps, learning_rate, weight_decay, restart_step=None):
    """Stochastic gradient descent with momentum 0.9, a learning rate that falls to 0 along a cosine, decay of kernels.

    Args:
        network: The Keras model that is trained; it must be built.
        steps: Integer, the number of steps in which the learning rate falls to 0.
        learning_rate: Float, that of the first step.
        weight_decay: Float, in the manner of Keras: each step multiplies a kernel by `1 - learning_rate * weight_decay`.
        restart_step: Integer, the step at which the learning rate has fallen to 0 and begins again at half of what it
            was, to fall to 0 in the remaining steps (a warm restart: Loshchilov and Hutter, "SGDR", 2017), or None.
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
    optimizer.exclude_from_weight_decay(var_list=[v for v in network.trainable_variables if not v.name.endswith("kernel")])
    return optimizer


def from_the_authors(learning_rate, weight_decay, timesteps):
    """The learning rate and weight decay in the terms of this library, from those of the authors' program.

    Their program differs in two ways. It divides the gradient by T: the same weights come of our gradient at a learning
    rate of 1/T, if the decay, which they do not divide, is T times as large. And its decay is a part of the gradient,
    through which it enters the momentum and counts `1 / (1 - momentum)` = 10 times in the long run, where Keras' decay
    works on the kernel by itself.

    Args:
        learning_rate: Float, theirs.
        weight_decay: Float, theirs: PyTorch's.
        timesteps: Integer T.

    Returns:
        Tuple `(learning_rate, weight_decay)`, both floats, as `sgd_with_cosine_decay` takes them.
    """
    return learning_rate / timesteps, weight_decay * timesteps / (1 - MOMENTUM)
