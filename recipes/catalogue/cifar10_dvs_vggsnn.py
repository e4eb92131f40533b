"""CIFAR10-DVS, recordings of an event camera, with VGGSNN, as in the paper: T = 10, 300 epochs, best on a GPU."""

from keras_ratesnn import models
from recipes.catalogue import paper
from recipes.data import cifar10_dvs
from recipes.recipe import Recipe
from recipes.stages import SpikingStage


def build_network(width):
    # No normalisation of the input: event counts are small, and most are zero.
    return models.VGGSNN(input_shape=cifar10_dvs.IMAGE_SHAPE, classes=cifar10_dvs.CLASSES, width=width).network


RECIPE = Recipe(
    name="cifar10_dvs_vggsnn",
    description="VGGSNN on CIFAR10-DVS, as in the paper",
    load_data=cifar10_dvs.load,
    build_network=build_network,
    has_time=True,
    spiking=SpikingStage(timesteps=10),
    augment="cifar10_dvs",
    **paper.SETTINGS,
)
