"""Recorded and compiled graphs of a model, on PyTorch."""

import contextlib

import keras

CALLS_BEFORE_REPLAY = 2
"""The calls of a kind before a graph is replayed, where it is recorded at once: one in eager mode, and the recording."""


@contextlib.contextmanager
def recorded_at_once():
    """A context in which the second call of every kind is recorded, and the first replay on a GPU is that of a CUDA graph.

    The first one runs in eager mode and compiles the time loops of neurons, forward and backward. Graphs contain these kernels,
    as after the many calls in eager mode that "auto" makes; without them a graph has several times as many operations.
    """
    if keras.backend.backend() != "torch":
        yield
        return
    from keras_ratesnn._core.backend.torch.recorder import call_graphs, cuda_graphs

    before = dict(call_graphs.EAGER_CALLS), cuda_graphs.CALLS_IN_A_ROW
    call_graphs.EAGER_CALLS.update(dict.fromkeys(call_graphs.EAGER_CALLS, CALLS_BEFORE_REPLAY - 1))
    cuda_graphs.CALLS_IN_A_ROW = 0
    try:
        yield
    finally:
        eager_calls, cuda_graphs.CALLS_IN_A_ROW = before
        call_graphs.EAGER_CALLS.update(eager_calls)


def calls_before_replay(jit_compile):
    """The calls before a graph is replayed, where it is recorded at once, with a value of `jit_compile`."""
    return 0 if jit_compile is False else CALLS_BEFORE_REPLAY


@contextlib.contextmanager
def compiled_by(compiler):
    """A context in which graphs are compiled by this compiler of PyTorch's; `None` leaves the choice as it is."""
    from keras_ratesnn._core.backend.torch.recorder import compiler as torch_compiler

    before = torch_compiler.COMPILER
    torch_compiler.COMPILER = compiler or before
    try:
        yield
    finally:
        torch_compiler.COMPILER = before


def taken(model):
    """What the calls of a model have used: "eager", "recorded" or "compiled".

    Args:
        model: A `SpikingModel`.
    """
    graphs = model._graphs.graphs
    if not graphs:
        return "eager"
    compiled = [getattr(part, "is_compiled", False) for graph in graphs for part in (graph.forward, graph.backward)]
    return "compiled" if all(compiled) else "recorded"
