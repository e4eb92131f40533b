"""Scaling: training steps on 1, 2, ... devices: `python -m recipes.benchmark --devices 1 2 4 8`.

Weak scaling: each device has the batch of the settings. Strong scaling: all devices share it. Efficiency is images per second
and device, relative to the first number of devices. Virtual devices share the cores of a CPU, so their efficiency says nothing
about accelerators.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import keras

from recipes import device, engine, markdown
from recipes.atomic_files import write_json

KINDS = ("weak", "strong")


def run(settings, devices, folder):
    """Measures all methods and values of T, prints a table of each and writes `scaling.json`; returns the exit status.

    Args:
        settings: `Settings`.
        devices: Sequence of integers.
        folder: Path of the output folder.
    """
    rows = []
    for timesteps in settings.timesteps:
        for method in settings.methods:
            own = [measured(settings, kind, method, timesteps, number) for kind in KINDS for number in dict.fromkeys(devices)]
            rows += own
            write_json(folder / "scaling.json", {"backend": keras.backend.backend(), "rows": rows})
            print(f"\n{method}, T = {timesteps}, {keras.backend.backend()} on {own[0]['device']}\n")
            print(table(own))
    if not device.gpu():
        print("\nThe devices are virtual: they share the CPU's cores, so these efficiencies are not evidence.")
    return 0


def measured(settings, kind, method, timesteps, devices):
    """A row: the settings, seconds of a step and images per second."""
    batch = settings.batch * (devices if kind == "weak" else 1)
    of_case = dataclasses.replace(settings, batch=batch, timesteps=(timesteps,), methods=(method,))
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "row.json")
        arguments = json.dumps(dataclasses.asdict(of_case)), method, str(devices), str(file)
        command = [sys.executable, "-m", "recipes.benchmark.scaling_case", *arguments]
        launches = engine.launches(devices)
        status = engine.launch(devices, command) if launches else subprocess.run(command, env=os.environ).returncode
        if status:
            raise RuntimeError(f"the case of {devices} devices ended with exit status {status}; its error is above")
        row = json.loads(file.read_text())
    return {"kind": kind, "devices": devices, "batch": batch, "images_per_second": batch / row["seconds"], **row}


def table(rows):
    """The rows as a Markdown table."""
    cells = []
    for kind in KINDS:
        of_kind = [row for row in rows if row["kind"] == kind]
        first = of_kind[0]["images_per_second"] / of_kind[0]["devices"]
        for row in of_kind:
            sent = f"{sum(row['bytes'].values()) / 2**20:.2f}" if "bytes" in row else ""
            speed, devices = row["images_per_second"], row["devices"]
            times = f"{1000 * row['seconds']:.1f}", f"{speed:.1f}", f"{speed / devices / first:.2f}"
            cells.append((kind, devices, row["batch"], *times, sent))
    return markdown.table(("scaling", "devices", "batch", "ms", "images/s", "efficiency", "sent, MiB"), cells)
