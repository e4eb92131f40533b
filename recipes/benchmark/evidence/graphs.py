"""Recorded and compiled graphs of a model, on PyTorch."""

import contextlib

from keras_ratesnn._model import call_graphs


@contextlib.contextmanager
def recorded_at_once():
    """A context in which the first call of every kind is recorded."""
    before = dict(call_graphs.EAGER_CALLS)
    call_graphs.EAGER_CALLS.update(dict.fromkeys(before, 0))
    try:
        yield
    finally:
        call_graphs.EAGER_CALLS.update(before)


@contextlib.contextmanager
def compiled_by(compiler):
    """A context in which graphs are compiled by this compiler of PyTorch's; `None` leaves the choice as it is."""
    from keras_ratesnn._core.backend.torch import compiler as torch_compiler

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
