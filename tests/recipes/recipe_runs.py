"""Runs the recipes' command lines inside the test process."""

import dataclasses
import io
import json
import zipfile
from unittest import mock

import h5py
import keras
import pytest
from helpers import assert_close

from recipes import callbacks, catalogue, run_folder
from recipes.train import main

QUICKLY = ("timesteps=1", "batch_size=512", "train_images=1024", "width=0.125")
if keras.backend.backend() == "tensorflow":
    QUICKLY += ("jit_compile=False",)
"""Settings for runs whose accuracy does not matter: two batches of one size an epoch,
so one program to compile."""


def trained(folder, *arguments):
    """Runs the command line with the output `folder`, and returns the record."""
    assert main([*arguments, "--output", str(folder)]) == 0
    return json.loads((folder / "result.json").read_text())


def stopped(folder, epoch, *arguments):
    """Interrupts that run at the end of an epoch of its network, counted from 0, before
    it is saved."""
    save = callbacks.Checkpoint.on_epoch_end

    def stop(saving, number, logs=None):
        if number == epoch and saving.folder.path.name != "ordinary":
            raise KeyboardInterrupt
        save(saving, number, logs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.Checkpoint, "on_epoch_end", stop)
        assert main([*arguments, "--output", str(folder)]) == 130


def curve_without_times(record):
    """The curve of a record, without what differs from run to run."""
    return {
        name: values
        for name, values in record["curve"].items()
        if name not in ("seconds", "images_per_second")
    }


def assert_same_states(*paths):
    """Asserts that two checkpoints have the same weights and states of optimizers, bit
    for bit."""
    first, second = map(_states, paths)
    assert first.keys() == second.keys()
    assert_close(second, first, rtol=0)


def _states(path):
    """The arrays of a checkpoint by their names."""
    states = {}

    def add(name, item):
        if isinstance(item, h5py.Dataset):
            states[file, name] = item[()]

    with zipfile.ZipFile(path) as archive:
        for file in {run_folder.FITTED, "model.weights.h5"} & {*archive.namelist()}:
            with h5py.File(io.BytesIO(archive.read(file))) as content:
                content.visititems(add)
    return states


def error_of(arguments, capsys, command=main):
    """The error message of a command line for a mistake of the user."""
    assert command([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    return captured.err


def changed(name, **changes):
    """A context in which a recipe is found with other values."""
    recipe = dataclasses.replace(catalogue.find(name), **changes)
    find = catalogue.find
    patch = mock.patch.object(
        catalogue, "find", lambda wanted: recipe if wanted == name else find(wanted)
    )
    patch.recipe = recipe
    return patch
