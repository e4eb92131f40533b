"""Peak memory of one case in a separate process, because the peak of a process never decreases."""

import dataclasses
import json
import subprocess
import sys

import keras

from recipes.benchmark import cases, costs
from recipes.benchmark.evidence import graphs
from recipes.benchmark.settings import Settings

GRAPH_READY = graphs.CALLS_BEFORE_REPLAY + 1
"""Calls on PyTorch after which a graph is recorded and compiled."""


def main():
    """Prints the bytes of the case on the command line: settings as JSON, method and T."""
    settings, method, timesteps = sys.argv[1:]
    print(f"bytes: {peak_bytes(Settings(**json.loads(settings)), method, int(timesteps))}")


def in_separate_process(settings, method, timesteps):
    """The peak memory of one training step, see `peak_bytes`."""
    options = [json.dumps(dataclasses.asdict(settings)), method, str(timesteps)]
    command = [sys.executable, "-m", "recipes.benchmark.process_peak", *options]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return int(output.split("bytes:")[1])


def peak_bytes(settings, method, timesteps):
    """The peak memory of one training step, in bytes: see `costs.memory_measure`."""
    if keras.backend.backend() == "tensorflow":
        # Without XLA: otherwise the compiler's memory, which is larger than that of the step, would count.
        settings = dataclasses.replace(settings, jit_compile=False)
    cases.configure(settings)
    model = cases.trainer(settings, method, timesteps)
    images, labels = cases.batch(settings, method)
    if keras.backend.backend() == "jax":
        return costs.compiled(model, images, labels)["memory_bytes"]
    # One image first: library buffers and traces do not belong to the step.
    model.train_on_batch(images[:1], labels[:1])

    def step():
        model.train_on_batch(images, labels)

    if keras.backend.backend() == "torch":
        with graphs.recorded_at_once():
            for _ in range(GRAPH_READY):
                step()
            return costs.memory_rise(step)
    return costs.memory_rise(step)


if __name__ == "__main__":
    main()
