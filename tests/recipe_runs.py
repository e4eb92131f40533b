"""The recipes' command lines, run inside the tests' process."""

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
    """A context in which JAX optimises what it compiles, which a run of more than a few batches is worth."""
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
    """The record of a run of the command line into `folder`."""
    assert main([*arguments, "--output", str(folder)]) == 0
    return json.loads((folder / "result.json").read_text())


def error_of(arguments, capsys, command=main):
    """What a command line says of a user's mistake."""
    assert command([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    return captured.err
