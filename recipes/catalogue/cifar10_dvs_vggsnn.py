"""CIFAR10-DVS, recordings of an event camera, with VGGSNN, as in the paper: T = 10, 300 epochs, best on a GPU."""

import functools

from recipes import blocks
from recipes.catalogue import paper
from recipes.data import cifar10_dvs
from recipes.recipe import Recipe
from recipes.stages import SpikingStage

RECIPE = Recipe(
    name="cifar10_dvs_vggsnn",
    description="VGGSNN on CIFAR10-DVS, as in the paper",
    load_data=cifar10_dvs.load,
    build_network=functools.partial(blocks.on_event_frames, cifar10_dvs.IMAGE_SHAPE, cifar10_dvs.CLASSES),
    has_time=True,
    spiking=SpikingStage(timesteps=10),
    augment="cifar10_dvs",
    **paper.SETTINGS,
)
