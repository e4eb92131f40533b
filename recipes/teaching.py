"""Teachers of a spiking network besides the labels: the ordinary network or pretrained
ones, branches of its own, or its own steps."""

import keras

from keras_ratesnn.distillation import Distiller
from keras_ratesnn.layers import Neuron
from keras_ratesnn.losses import SelfDistillation, TemporalDistillation
from keras_ratesnn.metrics import AnytimeAccuracy, HeadAccuracy
from keras_ratesnn.models import add_branches, load_pretrained
from keras_ratesnn.spiking_model import SpikingModel
from recipes.checks import mistake

TEMPERATURE = 3.0
"""The temperature of the authors of self-distillation, and Keras' default."""


def taught(model, recipe, dataset, ordinary_weights):
    """A model that trains a student, and its arguments of `compile` besides the
    optimizer; None if the recipe has labels alone.

    Args:
        model: The student, a built `SpikingModel`.
        recipe: Its `Recipe`.
        dataset: The `Dataset` for training.
        ordinary_weights: Path of the checkpoint of the ordinary network, a teacher, or
            `None`: it is untrained.

    Raises:
        ValueError: If teachers have other inputs or classes, or there are not enough
            stages for the branches.
    """
    temperature = recipe.temperature or TEMPERATURE
    if recipe.teacher_weight is not None:
        teacher = _teacher(model, recipe, dataset, ordinary_weights)
        distiller = Distiller(
            teacher,
            model,
            keras.distillation.LogitsDistillation(temperature=temperature),
            student_loss_weight=1.0 - recipe.teacher_weight,
        )
        distiller.build(teacher.input_shape)
        return distiller, recipe.task.compile_arguments(recipe, dataset)
    if recipe.branches is not None:
        loss = SelfDistillation(temperature=temperature)
        return _branched(model, recipe), {"loss": loss, "metrics": [HeadAccuracy()]}
    if recipe.step_distillation is not None:
        loss = TemporalDistillation(
            beta=recipe.step_distillation, temperature=temperature
        )
        accuracy = _accuracy_of_steps(model, recipe)
        return _with_all_steps(model), {"loss": loss, "metrics": [accuracy]}
    return None


def _teacher(model, recipe, dataset, ordinary_weights):
    if recipe.teachers is not None:
        return _mean_of_pretrained(recipe.teachers, model, dataset)
    teacher = recipe.ordinary_network(dataset)
    if ordinary_weights is not None:
        teacher.load_weights(ordinary_weights)
    return teacher


def _mean_of_pretrained(names, student, dataset):
    """A model of the mean of the outputs of pretrained networks, which have the inputs
    and the classes of the student."""
    networks = [load_pretrained(name) for name in names.split(",")]
    for network in networks:
        shapes = network.input_shape, network.output_shape
        if shapes != (student.input_shape, student.output_shape):
            must = (
                f"pretrained networks from {student.input_shape} to "
                f"{student.output_shape}, as the one that is trained"
            )
            remedy = f"{network.name!r} maps {shapes[0]} to {shapes[1]}."
            raise mistake("teachers", must, names, remedy)
    # Those of the data may have time.
    inputs = keras.Input(dataset.test_examples().element_spec[0].shape)
    outputs = [network(inputs) for network in networks]
    # A symbolic `keras.ops.stack` is of float32, whatever it stacks.
    mean = keras.layers.Average()(outputs) if outputs[1:] else outputs[0]
    return keras.Model(inputs, mean)


def _branched(model, recipe):
    """A copy of a `SpikingModel` with branches at the ends of its last stages, which
    shares its layers. They are not part of the trained network."""
    names = stages(model.network)
    if recipe.branches > len(names):
        must = (
            f"at most {len(names)} in recipe {recipe.name!r}, the number of stages of "
            "its network before the last"
        )
        raise mistake("branches", must, recipe.branches)
    return add_branches(model, names[-recipe.branches :])


def _with_all_steps(model):
    """A `SpikingModel` of the same network that returns the outputs of all steps."""
    return SpikingModel(
        model.network,
        model.timesteps,
        model.gradient,
        model.step_mode,
        return_sequences=True,
        mask_value=model.mask_value,
        name=f"{model.name}_steps",
        dtype=model.dtype_policy,
    )


def _accuracy_of_steps(model, recipe):
    if model.mask_value is not None:
        return _AccuracyAfterAllSteps(model.timesteps)
    accuracy = keras.metrics.sparse_categorical_accuracy
    if recipe.mix != "none":
        accuracy = keras.metrics.categorical_accuracy

    def is_right_in_the_mean(y_true, y_pred):
        return accuracy(y_true, keras.ops.mean(y_pred, axis=1))

    return keras.metrics.MeanMetricWrapper(is_right_in_the_mean, name="accuracy")


class _AccuracyAfterAllSteps(AnytimeAccuracy):
    """The accuracy of the mean of the steps that are not masked. Their number T is
    always the same."""

    def result(self):
        return super().result()[f"{self.name}_t{self.timesteps}"]


def stages(network):
    """Names of the last neuron layer before the images shrink, for each of their sizes
    but the last."""
    by_size = {
        layer.output.shape[1:-1]: layer.name
        for layer in network.layers
        if isinstance(layer, Neuron)
    }
    return list(by_size.values())[:-1]
