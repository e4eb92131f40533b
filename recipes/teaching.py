"""What a network learns from besides the labels: the ordinary network, or branches of its own."""

import keras

from keras_ratesnn.distillation import Distiller
from keras_ratesnn.layers import Neuron
from keras_ratesnn.losses import SelfDistillation
from keras_ratesnn.metrics import HeadAccuracy
from keras_ratesnn.models import add_branches

SETTINGS = ("ordinary", "ordinary_epochs", "ordinary_learning_rate", "teacher_weight", "branches", "temperature")
"""The settings of a recipe that train the spiking network with others: commands that train it alone do not use them."""

TEMPERATURE = 3.0
"""That of the authors of self-distillation, and Keras' default."""


def with_teacher(model, recipe, dataset, ordinary_weights):
    """A model that trains a student, and its arguments of `compile` besides the optimizer.

    Args:
        model: The student, a built model.
        recipe: Its `Recipe`.
        dataset: The `Dataset` for training.
        ordinary_weights: Path of the checkpoint of the ordinary network, the teacher, or `None`.
    """
    teacher = recipe.ordinary_network(dataset)
    if ordinary_weights is not None:
        teacher.load_weights(ordinary_weights)
    of_teacher = keras.distillation.LogitsDistillation(temperature=recipe.temperature or TEMPERATURE)
    distiller = Distiller(teacher, model, of_teacher, student_loss_weight=1.0 - recipe.teacher_weight)
    distiller.build(teacher.input_shape)
    return distiller, recipe.task.compile_arguments(recipe, dataset)


def with_branches(model, recipe):
    """A copy of a `SpikingModel` with branches, which shares its layers, and its arguments of `compile`.

    Raises:
        ValueError: If there are not enough stages.
    """
    names = stages(model.network)
    if recipe.branches > len(names):
        raise ValueError(
            f"`branches` must be at most {len(names)} in recipe {recipe.name!r}, the number of stages of its network before "
            f"the last. Received: branches={recipe.branches}."
        )
    branched = add_branches(model, names[-recipe.branches :])
    loss = SelfDistillation(temperature=recipe.temperature or TEMPERATURE)
    return branched, {"loss": loss, "metrics": [HeadAccuracy()]}


def stages(network):
    """Names of the last neuron layer before the images shrink, for each of their sizes but the last."""
    by_size = {layer.output.shape[1:-1]: layer.name for layer in network.layers if isinstance(layer, Neuron)}
    return list(by_size.values())[:-1]
