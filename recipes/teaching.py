"""What a spiking network learns from besides the labels: the ordinary network, branches of its own, or its own steps."""

import dataclasses

import keras

from keras_ratesnn.distillation import Distiller
from keras_ratesnn.layers import Neuron
from keras_ratesnn.losses import SelfDistillation, TemporalDistillation
from keras_ratesnn.metrics import HeadAccuracy
from keras_ratesnn.models import add_branches
from keras_ratesnn.spiking_model import SpikingModel
from recipes import checks

TEMPERATURE = 3.0
"""That of the authors of self-distillation, and Keras' default."""


@dataclasses.dataclass(frozen=True)
class Teacher:
    """The trained ordinary network teaches the spiking one, see `keras_ratesnn.distillation.Distiller`.

    Attributes:
        weight: Float in (0, 1]. The loss is `(1 - weight) * loss(labels) + weight * loss(teacher)`.
        temperature: Float > 0 for the softened probabilities of the teacher, or None for 3.
    """

    weight: float
    temperature: float | None = None

    def __post_init__(self):
        if checks.real("teacher_weight", self.weight, above=0, advice="None is without a teacher.") > 1:
            raise ValueError(f"`teacher_weight` must be at most 1. Received: teacher_weight={self.weight}.")
        _check_temperature(self.temperature)

    def around(self, model, recipe, dataset, ordinary_weights):
        """A model that trains a student, and its arguments of `compile` besides the optimizer.

        Args:
            model: The student, a built model.
            recipe: Its `Recipe`.
            dataset: The `Dataset` for training.
            ordinary_weights: Path of the checkpoint of the ordinary network, the teacher, or `None`: it is untrained.
        """
        teacher = recipe.ordinary_network(dataset)
        if ordinary_weights is not None:
            teacher.load_weights(ordinary_weights)
        of_teacher = keras.distillation.LogitsDistillation(temperature=self.temperature or TEMPERATURE)
        distiller = Distiller(teacher, model, of_teacher, student_loss_weight=1.0 - self.weight)
        distiller.build(teacher.input_shape)
        return distiller, recipe.task.compile_arguments(recipe, dataset)


@dataclasses.dataclass(frozen=True)
class Branches:
    """The spiking network learns from branches as well, at the ends of its stages, see `keras_ratesnn.models.add_branches`.

    They are not part of the trained network.

    Attributes:
        number: Integer >= 1.
        temperature: Float > 0 for the softened probabilities of the branches, or None for 3.
    """

    number: int
    temperature: float | None = None

    def __post_init__(self):
        checks.positive_integer("branches", self.number, advice="None is without branches.")
        _check_temperature(self.temperature)

    def around(self, model, recipe, dataset, ordinary_weights):
        """A copy of a `SpikingModel` with branches, which shares its layers; otherwise as `Teacher.around`.

        Raises:
            ValueError: If there are not enough stages.
        """
        names = stages(model.network)
        if self.number > len(names):
            raise ValueError(
                f"`branches` must be at most {len(names)} in recipe {recipe.name!r}, the number of stages of its network "
                f"before the last. Received: branches={self.number}."
            )
        loss = SelfDistillation(temperature=self.temperature or TEMPERATURE)
        return add_branches(model, names[-self.number :]), {"loss": loss, "metrics": [HeadAccuracy()]}


@dataclasses.dataclass(frozen=True)
class Steps:
    """Each time step learns from those that are right as well, see `keras_ratesnn.losses.TemporalDistillation`.

    Attributes:
        weight: Float > 0, the weight of what it learns from them.
        temperature: Float > 0 for the softened probabilities, or None for 3.
    """

    weight: float
    temperature: float | None = None

    def __post_init__(self):
        checks.real("step_distillation", self.weight, above=0, advice="None is without it.")
        _check_temperature(self.temperature)

    def around(self, model, recipe, dataset, ordinary_weights):
        """A `SpikingModel` of the same network that returns the outputs of all steps; otherwise as `Teacher.around`."""
        of_steps = SpikingModel(
            model.network,
            model.timesteps,
            model.gradient,
            model.step_mode,
            return_sequences=True,
            name=f"{model.name}_steps",
            dtype=model.dtype_policy,
        )
        loss = TemporalDistillation(beta=self.weight, temperature=self.temperature or TEMPERATURE)
        return of_steps, {"loss": loss, "metrics": [keras.metrics.MeanMetricWrapper(_is_right_in_the_mean, name="accuracy")]}


def _is_right_in_the_mean(y_true, y_pred):
    has_classes = len(y_true.shape) == 1 or y_true.shape[-1] == 1
    accuracy = keras.metrics.sparse_categorical_accuracy if has_classes else keras.metrics.categorical_accuracy
    return accuracy(y_true, keras.ops.mean(y_pred, axis=1))


def _check_temperature(temperature):
    if temperature is not None:
        checks.real("temperature", temperature, above=0, advice="It softens the probabilities.")


def stages(network):
    """Names of the last neuron layer before the images shrink, for each of their sizes but the last."""
    by_size = {layer.output.shape[1:-1]: layer.name for layer in network.layers if isinstance(layer, Neuron)}
    return list(by_size.values())[:-1]
