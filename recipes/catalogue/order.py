"""Spikes of which only the order tells the class, and a layer of neurons: a few
seconds. The data are all that there are."""

import keras

import keras_ratesnn
from recipes import order
from recipes.checks import mistake
from recipes.data.dataset import Dataset
from recipes.optimizers import AdamW
from recipes.recipe import Recipe
from recipes.stages import SpikingStage


def load(data_dir, timesteps):
    """The sequences of `order.order_in_time`, for training and for tests.

    Raises:
        ValueError: If a folder was given, or T is another one.
    """
    if data_dir is not None:
        raise ValueError(
            f"The data are made. Received: --data-dir {data_dir}. Leave --data-dir out."
        )
    if timesteps != order.T:
        raise mistake("timesteps", f"{order.T}, the length of the sequences", timesteps)
    x, y = order.order_in_time()
    return Dataset(x, y, x, y)


def build_network(width):
    inputs = keras.Input((order.CHANNELS,), name="spikes")
    x = keras_ratesnn.layers.LIF(decay=0.5)(
        keras.layers.Dense(max(1, round(16 * width)))(inputs)
    )
    return keras.Model(inputs, keras.layers.Dense(2, name="logits")(x), name="order")


RECIPE = Recipe(
    name="order",
    description="a layer of 16 neurons on made spikes, of which only the order tells "
    "the class, a few seconds",
    load_data=load,
    build_network=build_network,
    has_time=True,
    optimizer=AdamW(),
    learning_rate=0.1,
    weight_decay=0.0,
    epochs=order.EPOCHS,
    batch_size=32,
    spiking=SpikingStage(timesteps=order.T),
)
