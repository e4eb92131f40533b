"""The optimizers of the recipes."""

import keras

MOMENTUM = 0.9
RESTART = 0.5
"""A warm restart starts at this fraction of the initial learning rate."""

WARM_UP = 0.05
"""The fraction of the steps in which AdamW's learning rate rises."""
LARGEST_NORM = 10.0
"""The largest norm of AdamW's gradient; clipping matters in the first steps of
detectors."""


def build(recipe, network, steps):
    """The Keras optimizer of a recipe, with weight decay of kernels.

    `sgd` has momentum, `adamw` a warm-up and gradients that are clipped to a global
    norm; `adam` is to train a network on. The learning rate decays to 0, as a cosine.

    Args:
        recipe: A `Recipe`.
        network: The Keras model that is trained; it must be built.
        steps: Integer, the number of steps of the whole training.
    """
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.as_the_authors:
        rate, decay = paper_rates(rate, decay, recipe.timesteps)
    schedule = _cosine(rate, steps, recipe.restart_at)
    options = {"weight_decay": decay}
    if recipe.optimizer == "adamw":
        warm_up = max(1, round(WARM_UP * steps))
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0, max(1, steps - warm_up), warmup_target=rate, warmup_steps=warm_up
        )
        options["global_clipnorm"] = LARGEST_NORM
        optimizer = keras.optimizers.AdamW(schedule, **options)
    elif recipe.optimizer == "adam":
        optimizer = keras.optimizers.Adam(schedule, **options)
    else:
        optimizer = keras.optimizers.SGD(schedule, momentum=MOMENTUM, **options)
    without_decay = [
        variable
        for variable in network.trainable_variables
        if not variable.name.endswith("kernel")
    ]
    optimizer.exclude_from_weight_decay(var_list=without_decay)
    return optimizer


def _cosine(rate, steps, restart_at):
    """A cosine from a rate to 0; after a fraction of the steps, if it is not None, it
    starts again at half of the rate (a warm restart: Loshchilov and Hutter, "SGDR",
    2017)."""
    schedules = keras.optimizers.schedules
    # A run of one step cannot have a restart.
    if restart_at is None or steps == 1:
        return schedules.CosineDecay(rate, steps)
    restart = min(max(round(restart_at * steps), 1), steps - 1)
    return schedules.CosineDecayRestarts(
        rate, restart, t_mul=(steps - restart) / restart, m_mul=RESTART
    )


def paper_rates(learning_rate, weight_decay, timesteps):
    """Converts the learning rate and weight decay of the program of the paper's authors
    to those of this library.

    Their program differs in two ways. First, it divides the gradient by T, but not the
    weight decay. Ours gives the same weights with a learning rate divided by T and a
    weight decay multiplied by T. Second, their weight decay is part of the gradient. It
    enters the momentum and so counts `1 / (1 - momentum)` = 10 times in the long run.
    Keras' weight decay acts directly on the kernel.

    Args:
        learning_rate: Float, that of the authors.
        weight_decay: Float, that of the authors, as in PyTorch.
        timesteps: Integer T.

    Returns:
        Tuple `(learning_rate, weight_decay)` of floats, for Keras' SGD.
    """
    return learning_rate / timesteps, weight_decay * timesteps / (1 - MOMENTUM)
