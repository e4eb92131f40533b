"""Scaling: training steps on 1, 2, ... devices: `python -m recipes.benchmark --devices
1 2 4 8`.

Weak scaling: each device has the batch of the settings. Strong scaling: all devices
share it. Efficiency is images per second and device, relative to the first number of
devices. Virtual devices share the cores of a CPU, so their efficiency says nothing
about accelerators.
"""

import dataclasses
import json
import math
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

import keras
import numpy as np

from recipes import device, engine, markdown
from recipes.atomic_files import write_json
from recipes.benchmark import cases, timing
from recipes.benchmark.settings import Settings

KINDS = ("weak", "strong")

STEPS = 8
"""Steps in an epoch."""

WARM_UP_EPOCHS = 5
"""On PyTorch a step is recorded after 32 calls; elsewhere the first epoch compiles
it."""

_COLLECTIVE = re.compile(
    r"= (.*?) ((?:all|collective)-[a-z-]+?|reduce-scatter)(?:-start)?\("
)
_ARRAY = re.compile(r"([a-z]+)(\d+)\[([\d,]*)\]")


def run(settings, devices, folder):
    """Measures all methods and values of T, prints a table of each and writes
    `scaling.json`; returns the exit status.

    Args:
        settings: `Settings`.
        devices: Sequence of integers.
        folder: Path of the output folder.
    """
    rows = []
    for timesteps in settings.timesteps:
        for method in settings.methods:
            own = [
                measured(settings, kind, method, timesteps, number)
                for kind in KINDS
                for number in dict.fromkeys(devices)
            ]
            rows += own
            write_json(
                folder / "scaling.json",
                {"backend": keras.backend.backend(), "rows": rows},
            )
            print(
                f"\n{method}, T = {timesteps}, {keras.backend.backend()} on "
                f"{own[0]['device']}\n"
            )
            print(table(own))
    if not device.gpu():
        print(
            "\nThe devices are virtual: they share the CPU's cores, so these "
            "efficiencies are not evidence."
        )
    return 0


def measured(settings, kind, method, timesteps, devices):
    """A row: the settings, seconds of a step and images per second."""
    batch = settings.batch * (devices if kind == "weak" else 1)
    case = dataclasses.replace(
        settings, batch=batch, timesteps=(timesteps,), methods=(method,)
    )
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "row.json")
        module = "recipes.benchmark.scaling"
        arguments = [json.dumps(dataclasses.asdict(case)), str(devices), str(file)]
        command = [*engine.launcher(devices), "-m", module, *arguments]
        status = subprocess.run(command).returncode
        if status:
            raise RuntimeError(
                f"the case of {devices} devices ended with exit status {status}; its "
                "error is above"
            )
        row = json.loads(file.read_text())
    return {
        "kind": kind,
        "devices": devices,
        "batch": batch,
        "images_per_second": batch / row["seconds"],
        **row,
    }


def table(rows):
    """The rows as a Markdown table."""
    cells = []
    for kind in KINDS:
        own = [row for row in rows if row["kind"] == kind]
        first = own[0]["images_per_second"] / own[0]["devices"]
        for row in own:
            sent = f"{sum(row['bytes'].values()) / 2**20:.2f}" if "bytes" in row else ""
            speed, devices = row["images_per_second"], row["devices"]
            times = (
                f"{1000 * row['seconds']:.1f}",
                f"{speed:.1f}",
                f"{speed / devices / first:.2f}",
            )
            cells.append((kind, devices, row["batch"], *times, sent))
    return markdown.table(
        ("scaling", "devices", "batch", "ms", "images/s", "efficiency", "sent, MiB"),
        cells,
    )


def main(settings, devices, file):
    """The process of a case, or of one of its devices: writes seconds a step, and on
    JAX bytes, to a JSON file.

    Args:
        settings: String, `Settings` as a JSON object, with one method, one T and the
            global batch.
        devices: String, the number of devices.
        file: Path of the file.
    """
    this_process = engine.start(int(devices))
    settings = Settings(**json.loads(settings))
    cases.configure(settings)
    number, parts = this_process.part
    (method,), (timesteps,) = settings.methods, settings.timesteps
    images, labels = map(
        keras.ops.convert_to_numpy, cases.batch(settings, timesteps, method)
    )
    with this_process.scope():
        model = cases.trainer(settings, method, timesteps)
        own = [
            np.concatenate([array[number::parts]] * STEPS) for array in (images, labels)
        ]

        def epoch():
            model.fit(
                *own, batch_size=settings.batch // parts, shuffle=False, verbose=0
            )
            device.synchronize()

        times = timing.interleaved({"epoch": epoch}, WARM_UP_EPOCHS + settings.rounds)[
            "epoch"
        ]
        seconds = statistics.median(times[WARM_UP_EPOCHS:]) / STEPS
        row = {
            "seconds": seconds,
            "settings": dataclasses.asdict(settings),
            "device": device.name(),
        }
        if keras.backend.backend() == "jax" and this_process.devices > 1:
            row["bytes"] = sent_in_step(model, images, labels)
    if this_process.is_first:
        pathlib.Path(file).write_text(json.dumps(row))


def sent_in_step(model, images, labels):
    """What devices send to each other in a step: the bytes of the results of its
    collective operations, by their names.

    Args:
        model: A compiled Keras model, whose optimizer is built, on JAX in a
            `keras.distribution`.
        images: Array, the images of the global batch.
        labels: Array.
    """
    import jax

    variables = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    state = [[variable.value for variable in some] for some in variables]
    layout = keras.distribution.distribution().get_data_layout
    batch = [
        jax.device_put(array, layout(array.shape).backend_layout)
        for array in (images, labels)
    ]
    program = jax.jit(model.train_step).lower(state, (*batch, None)).compile().as_text()
    sent: dict[str, int] = {}
    for results, name in _COLLECTIVE.findall(program):
        sizes = [_bytes(*array) for array in _ARRAY.findall(results)]
        sent[name] = sent.get(name, 0) + sum(sizes)
    return sent


def _bytes(kind, bits, shape):
    return math.prod(map(int, filter(None, shape.split(",")))) * int(bits) // 8


if __name__ == "__main__":
    main(*sys.argv[1:])
