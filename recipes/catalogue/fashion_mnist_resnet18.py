"""Fashion-MNIST with ResNet-18: 11 million parameters, for a GPU."""

from keras_ratesnn import models
from recipes import blocks
from recipes.data import fashion_mnist
from recipes.recipe import Recipe
from recipes.stages import SpikingStage


def build_network(width):
    network = models.ResNet18(
        input_shape=fashion_mnist.IMAGE_SHAPE,
        classes=fashion_mnist.CLASSES,
        width=width,
    ).network
    return blocks.on_pixels(
        network, (fashion_mnist.MEAN_PIXEL,), (fashion_mnist.PIXEL_DEVIATION,)
    )


RECIPE = Recipe(
    name="fashion_mnist_resnet18",
    description="ResNet-18 on Fashion-MNIST, for a GPU",
    load_data=fashion_mnist.load,
    build_network=build_network,
    learning_rate=0.025,
    weight_decay=0.02,
    epochs=100,
    batch_size=128,
    spiking=SpikingStage(timesteps=4),
    augment="fashion_mnist",
)
