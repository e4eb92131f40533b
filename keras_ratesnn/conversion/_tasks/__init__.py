"""Tasks: models that are more than a graph, whose losses, steps and decoding are kept on a spiking network."""

from keras_ratesnn.conversion._tasks.spiking_task import spiking_model, with_network

__all__ = ["spiking_model", "with_network"]
