"""What a spiking network learns from besides the labels: the ordinary network, branches
of its own, or its own steps."""

import dataclasses

import keras

from keras_ratesnn.distillation import Distiller
from keras_ratesnn.layers import Neuron
from keras_ratesnn.losses import SelfDistillation, TemporalDistillation
from keras_ratesnn.metrics import AnytimeAccuracy, HeadAccuracy
from keras_ratesnn.models import add_branches, load_pretrained
from keras_ratesnn.spiking_model import SpikingModel
from recipes import checks
from recipes.checks import mistake

TEMPERATURE = 3.0
"""That of the authors of self-distillation, and Keras' default."""


@dataclasses.dataclass(frozen=True)
class Taught:
    """What a spiking network learns from.

    Attributes:
        amount: Number, how much of it.
        temperature: Float > 0 for softened probabilities, or None for 3.
    """

    amount: float
    temperature: float | None = None

    def __post_init__(self):
        self.check_amount()
        if self.temperature is not None:
            checks.real(
                "temperature",
                self.temperature,
                above=0,
                advice="It softens the probabilities.",
            )

    @property
    def softness(self):
        """The temperature, if none is set that of the authors."""
        return self.temperature or TEMPERATURE


@dataclasses.dataclass(frozen=True)
class Teacher(Taught):
    """The trained ordinary network or pretrained ones teach the spiking one, see
    `keras_ratesnn.distillation.Distiller`.

    `amount` is a float in (0, 1], `teacher_weight`: the loss is `(1 - amount) *
    loss(labels) + amount * loss(teacher)`.

    Attributes:
        pretrained: Names or addresses of pretrained networks with commas between them,
            `teachers`: the mean of their outputs teaches. Or None, the ordinary
            network.
    """

    pretrained: str | None = None

    def check_amount(self):
        if (
            checks.real(
                "teacher_weight",
                self.amount,
                above=0,
                advice="None is without a teacher.",
            )
            > 1
        ):
            raise ValueError(
                "`teacher_weight` must be at most 1. Received: "
                f"teacher_weight={self.amount}."
            )
        names = self.pretrained
        if names is not None and not (isinstance(names, str) and all(names.split(","))):
            raise mistake(
                "teachers",
                "names of pretrained networks with commas between them",
                names,
            )

    def around(self, model, recipe, dataset, ordinary_weights):
        """A model that trains a student, and its arguments of `compile` besides the
        optimizer.

        Args:
            model: The student, a built model.
            recipe: Its `Recipe`.
            dataset: The `Dataset` for training.
            ordinary_weights: Path of the checkpoint of the ordinary network, the
                teacher, or `None`: it is untrained.
        """
        if self.pretrained is not None:
            teacher = _mean_of(self.pretrained, model, dataset)
        else:
            teacher = recipe.ordinary_network(dataset)
            if ordinary_weights is not None:
                teacher.load_weights(ordinary_weights)
        of_teacher = keras.distillation.LogitsDistillation(temperature=self.softness)
        distiller = Distiller(
            teacher, model, of_teacher, student_loss_weight=1.0 - self.amount
        )
        distiller.build(teacher.input_shape)
        return distiller, recipe.task.compile_arguments(recipe, dataset)


def _mean_of(names, student, dataset):
    """A model of the mean of the outputs of pretrained networks, which have the inputs
    and the classes of the student."""
    networks = [load_pretrained(name) for name in names.split(",")]
    for network in networks:
        if (
            network.input_shape != student.input_shape
            or network.output_shape != student.output_shape
        ):
            shapes = f"from {student.input_shape} to {student.output_shape}"
            its = (
                f"{network.name!r} maps {network.input_shape} to "
                f"{network.output_shape}."
            )
            raise mistake(
                "teachers",
                f"pretrained networks {shapes}, as the one that is trained",
                names,
                its,
            )
    # Those of the data may have time.
    inputs = keras.Input(dataset.test_examples().element_spec[0].shape)
    outputs = [network(inputs) for network in networks]
    # A symbolic `keras.ops.stack` is of float32, whatever it stacks.
    return keras.Model(
        inputs, keras.layers.Average()(outputs) if outputs[1:] else outputs[0]
    )


class Branches(Taught):
    """The spiking network learns from branches as well, at the ends of its stages, see
    `keras_ratesnn.models.add_branches`.

    They are not part of the trained network. `amount` is their number, `branches`.
    """

    def check_amount(self):
        checks.positive_integer(
            "branches", self.amount, advice="None is without branches."
        )

    def around(self, model, recipe, dataset, ordinary_weights):
        """A copy of a `SpikingModel` with branches, which shares its layers; otherwise
        as `Teacher.around`.

        Raises:
            ValueError: If there are not enough stages.
        """
        names = stages(model.network)
        if self.amount > len(names):
            must = (
                f"at most {len(names)} in recipe {recipe.name!r}, the number of "
                "stages of its network before the last"
            )
            raise mistake("branches", must, self.amount)
        loss = SelfDistillation(temperature=self.softness)
        return add_branches(model, names[-self.amount :]), {
            "loss": loss,
            "metrics": [HeadAccuracy()],
        }


class Steps(Taught):
    """Each time step learns from those that are right as well, see
    `keras_ratesnn.losses.TemporalDistillation`.

    `amount` is the weight of what it learns from them, `step_distillation`, a
    float > 0.
    """

    def check_amount(self):
        checks.real(
            "step_distillation", self.amount, above=0, advice="None is without it."
        )

    def around(self, model, recipe, dataset, ordinary_weights):
        """A `SpikingModel` of the same network that returns the outputs of all steps;
        otherwise as `Teacher.around`."""
        options = {
            "return_sequences": True,
            "name": f"{model.name}_steps",
            "dtype": model.dtype_policy,
        }
        options["mask_value"] = model.mask_value
        of_steps = SpikingModel(
            model.network, model.timesteps, model.gradient, model.step_mode, **options
        )
        loss = TemporalDistillation(beta=self.amount, temperature=self.softness)
        if model.mask_value is None:
            accuracy = keras.metrics.MeanMetricWrapper(
                _is_right_in_the_mean, name="accuracy"
            )
        else:
            accuracy = _AccuracyAfterAllSteps(model.timesteps)
        return of_steps, {"loss": loss, "metrics": [accuracy]}


class _AccuracyAfterAllSteps(AnytimeAccuracy):
    """The accuracy of the mean of the steps that are not masked. Their number T is
    always the same."""

    def result(self):
        return super().result()[f"{self.name}_t{self.timesteps}"]


def _is_right_in_the_mean(y_true, y_pred):
    has_classes = len(y_true.shape) == 1 or y_true.shape[-1] == 1
    accuracy = (
        keras.metrics.sparse_categorical_accuracy
        if has_classes
        else keras.metrics.categorical_accuracy
    )
    return accuracy(y_true, keras.ops.mean(y_pred, axis=1))


def stages(network):
    """Names of the last neuron layer before the images shrink, for each of their sizes
    but the last."""
    by_size = {
        layer.output.shape[1:-1]: layer.name
        for layer in network.layers
        if isinstance(layer, Neuron)
    }
    return list(by_size.values())[:-1]
