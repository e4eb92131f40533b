"""Tasks: models that are more than a graph, whose losses, steps and decoding are kept
on a spiking network."""
