"""How the recipes' networks are optimised."""

import keras


def sgd_with_cosine_decay(network, steps, learning_rate, weight_decay):
    """Stochastic gradient descent with momentum 0.9, a learning rate that falls to 0 along a cosine, decay of kernels.

    Args:
        network: The Keras model that is trained; it must be built.
        steps: Integer, the number of steps in which the learning rate falls to 0.
        learning_rate: Float, that of the first step.
        weight_decay: Float, in the manner of Keras: each step multiplies a kernel by `1 - learning_rate * weight_decay`.
            Where the decay is a part of the gradient, as in PyTorch, momentum makes it ten times as strong.

    Returns:
        A `keras.optimizers.SGD`.
    """
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, decay_steps=steps)
    optimizer = keras.optimizers.SGD(schedule, momentum=0.9, weight_decay=weight_decay)
    optimizer.exclude_from_weight_decay(var_list=[v for v in network.trainable_variables if not v.name.endswith("kernel")])
    return optimizer
