"""Fashion-MNIST in front of an event camera, made recordings, with VGGSNN: T = 10, at a
quarter of its width."""

import functools

from recipes import blocks
from recipes.data import fashion_mnist_events as data
from recipes.recipe import Recipe
from recipes.stages import SpikingStage

RECIPE = Recipe(
    name="fashion_mnist_events",
    description="VGGSNN on made event camera recordings of Fashion-MNIST",
    load_data=data.load,
    build_network=functools.partial(
        blocks.on_event_frames, data.IMAGE_SHAPE, data.CLASSES
    ),
    has_time=True,
    spiking=SpikingStage(timesteps=10),
    width=0.25,
    epochs=20,
    batch_size=32,
    learning_rate=0.1,
    weight_decay=5e-3,
    augment="cifar10_dvs",
)
