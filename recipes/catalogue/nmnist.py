"""N-MNIST, digits before an event camera, with the network of PLIF: T = 10, best on a GPU.

Network, T, frames by count, batch size and learning rate are those of Fang et al., ICCV 2021 (arXiv 2007.05785), and of their
program (Parametric-Leaky-Integrate-and-Fire-Spiking-Neuron). It uses Adam with a cosine that returns every 128 epochs, for 1024
epochs, and BPTT; here 64 epochs, the half period of its cosine, and the rate gradient. Their accuracy is 0.9961.
"""

import functools

from recipes import blocks
from recipes.data import nmnist
from recipes.optimizers import AdamW
from recipes.recipe import Recipe
from recipes.stages import SpikingStage

RECIPE = Recipe(
    name="nmnist",
    description="the network of PLIF on N-MNIST, handwritten digits before an event camera",
    load_data=nmnist.load,
    build_network=functools.partial(blocks.parametric_lif_network, nmnist.IMAGE_SHAPE, nmnist.CLASSES, 2, 2048),
    has_time=True,
    spiking=SpikingStage(timesteps=10),
    optimizer=AdamW(),
    learning_rate=1e-3,
    weight_decay=0.0,
    epochs=64,
    batch_size=16,
)
