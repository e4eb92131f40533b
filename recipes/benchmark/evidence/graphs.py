"""Recorded and compiled graphs of a model, on PyTorch."""

import contextlib

import keras

import keras_ratesnn

CALLS_BEFORE_REPLAY = 2
"""The calls of a kind before a graph is replayed, where it is recorded at once: one in
eager mode, and the recording."""


@contextlib.contextmanager
def recorded_at_once():
    """A context in which the second call of every kind is recorded, and the first
    replay on a GPU is that of a CUDA graph.

    The first one runs in eager mode and compiles the time loops of neurons, forward and
    backward. Graphs contain these kernels, as after the many calls in eager mode that
    "auto" makes; without them a graph has several times as many operations.
    """
    if keras.backend.backend() != "torch":
        yield
        return
    eager_calls = dict.fromkeys(("auto", True), CALLS_BEFORE_REPLAY - 1)
    with keras_ratesnn.engine_settings(eager_calls=eager_calls, calls_in_a_row=0):
        yield


def calls_before_replay(jit_compile):
    """The calls before a graph is replayed, where it is recorded at once, with a value
    of `jit_compile`."""
    return 0 if jit_compile is False else CALLS_BEFORE_REPLAY


def compiled_by(compiler):
    """A context in which graphs are compiled by this compiler of PyTorch's; `None`
    leaves the choice as it is."""
    return keras_ratesnn.engine_settings(
        **({} if compiler is None else {"compiler": compiler})
    )
