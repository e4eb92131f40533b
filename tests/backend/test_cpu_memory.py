"""Memory that training steps free on CPUs, on PyTorch: it is kept for the next step."""

import json
import os
import subprocess
import sys

import pytest

if sys.platform != "linux":
    pytest.skip(
        "only the C library of Linux is told what to keep", allow_module_level=True
    )

PROGRAM = """
import json, resource, keras, numpy as np, keras_ratesnn as rsnn
x = inputs = keras.Input((64, 64, 3))
for _ in range(2):
    x = rsnn.layers.LIF()(keras.layers.Conv2D(32, 3, padding="same")(x))
x = keras.layers.GlobalAveragePooling2D()(x)
network = keras.Model(inputs, keras.layers.Dense(2)(x))
model = rsnn.SpikingModel(network, timesteps=4)
model.compile("sgd", "mse")
x, y = np.ones((16, 64, 64, 3), "float32"), np.ones((16, 2), "float32")
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    model.train_on_batch(x, y)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
with rsnn.engine_settings(eager_calls={"auto": 1, True: 1}):
    print(json.dumps([faults() for _ in range(5)]), model.execution)
"""


def faults_of_steps(environment):
    others = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))
    }
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=others | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    *_, last = run.stdout.splitlines()
    faults, engine = last.rsplit(" ", 1)
    assert engine == "recorded"
    return json.loads(faults)


def test_the_steps_of_a_recorded_model_use_the_memory_of_the_steps_before():
    first, *_, last = faults_of_steps({})
    # A page has 4096 bytes; the activations of a step have 130 MB.
    assert first > 10_000
    assert last < 1_000


def test_what_the_user_chose_for_freed_memory_stays():
    assert (
        faults_of_steps(
            {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}
        )[-1]
        > 10_000
    )
