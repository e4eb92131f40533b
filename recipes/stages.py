"""The stages of a training: that of the spiking network, and before it, if wanted, that
of the ordinary network."""

import dataclasses

from keras_ratesnn import gradients
from keras_ratesnn.callbacks import RandomTimesteps, TimestepSchedule
from keras_ratesnn.spiking_model import STEP_MODES
from recipes import checks
from recipes.checks import both_set, mistake
from recipes.teaching import Taught, Teacher


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrdinaryStage:
    """The training of the ordinary network, with ReLUs instead of neurons, before that
    of the spiking one.

    Attributes:
        gives_weights: Whether the spiking network starts from its weights; otherwise
            from scratch.
        epochs: Integer >= 1, or None for those of the spiking network.
        learning_rate: Float, or None for that of the spiking network.
    """

    gives_weights: bool
    epochs: int | None = None
    learning_rate: float | None = None

    def __post_init__(self):
        if self.epochs is not None:
            checks.positive_integer(
                "ordinary_epochs",
                self.epochs,
                advice="None trains as long as `epochs`.",
            )
        if self.learning_rate is not None:
            checks.real(
                "ordinary_learning_rate",
                self.learning_rate,
                above=0,
                advice="None is `learning_rate`.",
            )

    def own(self, epochs, learning_rate):
        """Its own epochs and learning rate, a dictionary, where those of the spiking
        network are these."""
        return {
            "epochs": self.epochs or epochs,
            "learning_rate": self.learning_rate or learning_rate,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpikingStage:
    """The training of the spiking network.

    Attributes:
        timesteps: Integer >= 1, the number of time steps T.
        levels: Integer >= 1, D: all neurons are `keras_ratesnn.layers.ILIF(levels)`,
            with integer spikes of up to D in a step, which are sent in T · D slots
            (`keras_ratesnn.unroll`); or None, the recipe's neurons. A converted network
            has them without a leak.
        weights: "int8", "int4" or "ternary": it is trained with quantised kernels and
            decays, see `keras_ratesnn.quantize_aware`; or None, floats.
        gradient: A `keras_ratesnn.gradients.GradientMethod`.
        step_mode: "multi" or "single", see `keras_ratesnn.SpikingModel`.
        random_timesteps: The smallest and the largest number of time steps of a batch
            in training, see `keras_ratesnn.callbacks.RandomTimesteps`, or None:
            `timesteps` in all batches. Tests are with `timesteps`.
        one_step_epochs: Integer >= 0, the number of epochs at the start that train with
            T = 1, which costs less; the others train with `timesteps`. Tests are with
            `timesteps`.
        start_from: The name or address of a pretrained network of the recipe, see
            `keras_ratesnn.models.load_pretrained`, with whose weights and neurons it
            starts; or None, from scratch or from what `after` gives.
        after: The `OrdinaryStage` before it, or None.
        taught_by: What it learns from besides the labels, see `teaching`, or None.

    Raises:
        TypeError: If a number has the wrong type.
        ValueError: If a number is out of range, it would start from two networks, or
            there is a teacher that is not pretrained, without the stage in which it is
            trained.
    """

    timesteps: int
    levels: int | None = None
    weights: str | None = None
    gradient: gradients.GradientMethod = dataclasses.field(
        default_factory=gradients.Rate
    )
    step_mode: str = "multi"
    random_timesteps: tuple[int, int] | None = None
    one_step_epochs: int = 0
    start_from: str | None = None
    after: OrdinaryStage | None = None
    taught_by: Taught | None = None

    def __post_init__(self):
        checks.positive_integer(
            "timesteps",
            self.timesteps,
            advice="It is the number of time steps that the network runs for.",
        )
        if self.levels is not None:
            checks.positive_integer(
                "levels", self.levels, advice="None is the recipe's neurons."
            )
        checks.one_of("weights", self.weights, (None, "int8", "int4", "ternary"))
        checks.one_of("step_mode", self.step_mode, STEP_MODES)
        self.gradient.check_timesteps(self.timesteps)
        if self.random_timesteps is not None:
            self._check_random_timesteps()
        if checks.integer("one_step_epochs", self.one_step_epochs):
            self._check_one_step_epochs()
        if (
            self.start_from is not None
            and self.after is not None
            and self.after.gives_weights
        ):
            raise both_set(start_from=self.start_from, ordinary="first")
        if (
            isinstance(self.taught_by, Teacher)
            and self.taught_by.pretrained is None
            and self.after is None
        ):
            raise ValueError(
                "`taught_by` needs the stage of the teacher, `after`. Received: "
                f"{self.taught_by}, after=None."
            )

    def _check_random_timesteps(self):
        if (
            not isinstance(self.random_timesteps, tuple)
            or len(self.random_timesteps) != 2
        ):
            must = (
                "two integers, the smallest and the largest number of time steps, "
                "as in random_timesteps=[1,4]"
            )
            raise mistake(
                "random_timesteps", must, self.random_timesteps, kind=TypeError
            )
        try:
            random = self.random_callback()
            for timesteps in range(random.low, random.high + 1):
                self.gradient.check_timesteps(timesteps)
        except (TypeError, ValueError) as error:
            must = "numbers of time steps that can be trained"
            raise mistake(
                "random_timesteps",
                must,
                list(self.random_timesteps),
                error,
                type(error),
            ) from error

    def _check_one_step_epochs(self):
        if self.one_step_epochs < 0:
            raise mistake("one_step_epochs", "0 or more", self.one_step_epochs)
        if self.random_timesteps is not None:
            raise both_set(
                one_step_epochs=self.one_step_epochs,
                random_timesteps=list(self.random_timesteps),
            )
        try:
            self.gradient.check_timesteps(1)
        except ValueError as error:
            received = f"Received: one_step_epochs={self.one_step_epochs}"
            raise ValueError(
                f"`one_step_epochs` needs a gradient for T = 1. {received}. {error}"
            ) from error

    def changes(self, seed):
        """The callbacks that give batches another number of time steps than
        `timesteps`, a list."""
        if self.random_timesteps is not None:
            return [self.random_callback(seed)]
        if self.one_step_epochs:
            return [TimestepSchedule([self.one_step_epochs], [1, self.timesteps])]
        return []

    def random_callback(self, seed=0):
        """The `RandomTimesteps` of `random_timesteps`."""
        return RandomTimesteps(*self.random_timesteps, seed=seed)
