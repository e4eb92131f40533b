"""DVS128 Gesture with the network of PLIF: T = 20, best on a GPU.

Network, T, frames by count, batch size and learning rate are those of Fang et al., ICCV 2021 (arXiv 2007.05785), and of their
program (Parametric-Leaky-Integrate-and-Fire-Spiking-Neuron). It uses Adam with a cosine that returns every 128 epochs, for 1024
epochs, and BPTT; here 64 epochs, the half period of its cosine, and the rate gradient. Their accuracy is 0.9757.
"""

import functools

from recipes import blocks
from recipes.data import dvs_gesture
from recipes.optimizers import AdamW
from recipes.recipe import Recipe
from recipes.stages import SpikingStage

RECIPE = Recipe(
    name="dvs_gesture",
    description="the network of PLIF on DVS128 Gesture, gestures before an event camera",
    load_data=dvs_gesture.load,
    build_network=functools.partial(blocks.parametric_lif_network, dvs_gesture.IMAGE_SHAPE, dvs_gesture.CLASSES, 5, 512),
    has_time=True,
    spiking=SpikingStage(timesteps=20),
    optimizer=AdamW(),
    learning_rate=1e-3,
    weight_decay=0.0,
    epochs=64,
    batch_size=16,
)
