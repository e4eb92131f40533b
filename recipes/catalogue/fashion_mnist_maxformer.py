"""Fashion-MNIST with a small Max-Former: 1.66 million parameters, 49 tokens, for two
cores or a GPU."""

from keras_ratesnn import models
from recipes import blocks
from recipes.catalogue import transformers
from recipes.data import fashion_mnist
from recipes.optimizers import AdamW
from recipes.recipe import Recipe
from recipes.stages import SpikingStage


def build_network(width):
    network = transformers.build_network(
        models.MaxFormer,
        fashion_mnist.IMAGE_SHAPE,
        fashion_mnist.CLASSES,
        192,
        4,
        8,
        width,
    )
    return blocks.on_pixels(
        network, (fashion_mnist.MEAN_PIXEL,), (fashion_mnist.PIXEL_DEVIATION,)
    )


RECIPE = Recipe(
    name="fashion_mnist_maxformer",
    description="a small Max-Former, a spiking transformer, on Fashion-MNIST",
    load_data=fashion_mnist.load,
    build_network=build_network,
    optimizer=AdamW(),
    # As the authors' with CIFAR-10; fewer epochs.
    learning_rate=1.5e-3,
    weight_decay=0.06,
    epochs=20,
    batch_size=128,
    spiking=SpikingStage(timesteps=4),
    augment="fashion_mnist",
)
