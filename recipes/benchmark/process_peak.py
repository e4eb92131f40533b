"""Peak memory of one case in a separate process, because the peak of a process never
decreases."""

import dataclasses
import functools

import keras

from recipes.benchmark import cases, costs
from recipes.benchmark.evidence import graphs
from recipes.benchmark.own_process import new_process

GRAPH_READY = graphs.CALLS_BEFORE_REPLAY + 1
"""Calls on PyTorch after which a graph is recorded and compiled."""


def in_separate_process(settings, method, timesteps):
    """The peak memory of one training step, see `peak_bytes`."""
    with new_process() as process:
        return process.submit(peak_bytes, settings, method, timesteps).result()


def peak_bytes(settings, method, timesteps):
    """The peak memory of one training step, in bytes: see `costs.memory_measure`."""
    if keras.backend.backend() == "tensorflow":
        # Without XLA: otherwise the compiler's memory, which is larger than that of the
        # step, would count.
        settings = dataclasses.replace(settings, jit_compile=False)
    cases.configure(settings)
    model = cases.trainer(settings, method, timesteps)
    images, labels = cases.batch(settings, method)
    if keras.backend.backend() == "jax":
        return costs.compiled(model, images, labels)["memory_bytes"]
    # One image first: library buffers and traces do not belong to the step.
    model.train_on_batch(images[:1], labels[:1])

    step = functools.partial(model.train_on_batch, images, labels)
    with graphs.recorded_at_once():
        for _ in range(GRAPH_READY if keras.backend.backend() == "torch" else 0):
            step()
        return costs.memory_rise(step)
