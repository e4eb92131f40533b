"""The network of PLIF on recordings of event cameras: DVS128 Gesture, T = 20, and
N-MNIST, T = 10; best on a GPU.

Networks, T, frames by count, batch size and learning rate are those of Fang et al.,
ICCV 2021 (arXiv 2007.05785), and of their program
(Parametric-Leaky-Integrate-and-Fire-Spiking-Neuron). It uses Adam with a cosine that
returns every 128 epochs, for 1024 epochs, and BPTT; here 64 epochs, the half period of
its cosine, and the rate gradient. Their accuracy is 0.9757 on DVS128 Gesture, 0.9961 on
N-MNIST.
"""

import functools

from recipes import blocks
from recipes.data import dvs_gesture, nmnist
from recipes.optimizers import AdamW
from recipes.recipe import Recipe
from recipes.stages import SpikingStage


def recipe(name, description, data, timesteps, convolutions, units):
    """The recipe of a module of data, with a network of so many convolutions, and so
    many units before the classes."""
    return Recipe(
        name=name,
        description=f"the network of PLIF on {description} before an event camera",
        load_data=data.load,
        build_network=functools.partial(
            blocks.parametric_lif_network,
            data.IMAGE_SHAPE,
            data.CLASSES,
            convolutions,
            units,
        ),
        has_time=True,
        spiking=SpikingStage(timesteps=timesteps),
        optimizer=AdamW(),
        learning_rate=1e-3,
        weight_decay=0.0,
        epochs=64,
        batch_size=16,
    )


RECIPES = (
    recipe("dvs_gesture", "DVS128 Gesture, gestures", dvs_gesture, 20, 5, 512),
    recipe("nmnist", "N-MNIST, handwritten digits", nmnist, 10, 2, 2048),
)
