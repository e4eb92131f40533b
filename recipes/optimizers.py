"""The optimizers of the recipes."""

import dataclasses

import keras

from recipes import checks

MOMENTUM = 0.9
RESTART = 0.5
"""A warm restart starts at this fraction of the initial learning rate."""

WARM_UP = 0.05
"""The fraction of the steps in which AdamW's learning rate rises."""
LARGEST_NORM = 10.0
"""Of AdamW's gradient."""


def sgd_with_cosine_decay(
    network, steps, learning_rate, weight_decay, restart_step=None
):
    """SGD with momentum 0.9, cosine decay of the learning rate to 0, and weight decay
    of kernels.

    Args:
        network: The Keras model that is trained; it must be built.
        steps: Integer, the number of steps in which the learning rate decays to 0.
        learning_rate: Float, the initial learning rate.
        weight_decay: Float, as in Keras: each step multiplies a kernel by `1 -
            learning_rate * weight_decay`.
        restart_step: Integer or None: the step at which the learning rate, which has
            decayed to 0, restarts at half of its initial value, to decay to 0 in the
            remaining steps (a warm restart: Loshchilov and Hutter, "SGDR", 2017).
            Defaults to `None`.

    Returns:
        A `keras.optimizers.SGD`.
    """
    if restart_step is None:
        schedule = keras.optimizers.schedules.CosineDecay(
            learning_rate, decay_steps=steps
        )
    else:
        schedule = keras.optimizers.schedules.CosineDecayRestarts(
            learning_rate,
            restart_step,
            t_mul=(steps - restart_step) / restart_step,
            m_mul=RESTART,
        )
    optimizer = keras.optimizers.SGD(
        schedule, momentum=MOMENTUM, weight_decay=weight_decay
    )
    return _decaying_kernels(optimizer, network)


def _decaying_kernels(optimizer, network):
    optimizer.exclude_from_weight_decay(
        var_list=[
            v for v in network.trainable_variables if not v.name.endswith("kernel")
        ]
    )
    return optimizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class SGD:
    """SGD with momentum, see `sgd_with_cosine_decay`.

    Attributes:
        restart_at: Float in (0, 1), or None: after this fraction of the run the
            learning rate, which has decayed to 0, restarts at half of its initial value
            (a warm restart).
        paper_rates: Whether learning rate and weight decay are those of the program of
            the paper's authors, see `of_the_paper`.
    """

    restart_at: float | None = None
    paper_rates: bool = False

    def __post_init__(self):
        checks.boolean("as_the_authors", self.paper_rates)
        if self.restart_at is not None:
            checks.real(
                "restart_at",
                self.restart_at,
                above=0,
                below=1,
                advice="It is a fraction of the run, or None.",
            )

    def build(self, network, steps, learning_rate, weight_decay, timesteps):
        """The Keras optimizer of a network that is trained for this number of steps."""
        rates, restart = (learning_rate, weight_decay), None
        # A run of one step cannot have a restart.
        if self.restart_at is not None and steps > 1:
            restart = min(max(round(self.restart_at * steps), 1), steps - 1)
        if self.paper_rates:
            rates = of_the_paper(*rates, timesteps)
        return sgd_with_cosine_decay(network, steps, *rates, restart_step=restart)


@dataclasses.dataclass(frozen=True)
class AdamW:
    """AdamW with a linear warm-up, then cosine decay of the learning rate to 0.

    Gradients are clipped to a global norm, which matters in the first steps of
    detectors.
    """

    def build(self, network, steps, learning_rate, weight_decay, timesteps):
        """The Keras optimizer of a network that is trained for this number of steps."""
        warm_up = max(1, round(WARM_UP * steps))
        rising = {"warmup_target": learning_rate, "warmup_steps": warm_up}
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0, max(1, steps - warm_up), **rising
        )
        optimizer = keras.optimizers.AdamW(
            schedule, weight_decay=weight_decay, global_clipnorm=LARGEST_NORM
        )
        return _decaying_kernels(optimizer, network)


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam with cosine decay of the learning rate to 0, to train a network on."""

    def build(self, network, steps, learning_rate, weight_decay, timesteps):
        """The Keras optimizer of a network that is trained for this number of steps."""
        schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        return _decaying_kernels(
            keras.optimizers.Adam(schedule, weight_decay=weight_decay), network
        )


def of_the_paper(learning_rate, weight_decay, timesteps):
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
        Tuple `(learning_rate, weight_decay)` of floats, for `sgd_with_cosine_decay`.
    """
    return learning_rate / timesteps, weight_decay * timesteps / (1 - MOMENTUM)
