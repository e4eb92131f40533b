"""Runs the recipes' command lines inside the test process."""

import contextlib
import json

import keras

from recipes.train import main

QUICKLY = ("timesteps=1", "batch_size=512", "train_images=1024", "width=0.125")
if keras.backend.backend() == "tensorflow":
    QUICKLY += ("jit_compile=False",)
"""Settings for runs whose accuracy does not matter: two batches of one size an epoch, so one program to compile."""


@contextlib.contextmanager
def fast_programs():
    """A context in which JAX optimises compiled programs, which pays off for more than a few batches."""
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def trained(folder, *arguments):
    """Runs the command line with the output `folder`, and returns the record."""
    assert main([*arguments, "--output", str(folder)]) == 0
    return json.loads((folder / "result.json").read_text())


def error_of(arguments, capsys, command=main):
    """The error message of a command line for a mistake of the user."""
    assert command([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    return captured.err
