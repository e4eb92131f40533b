"""Spikes and their rates that wait as bytes: for later layers, and for the backward
pass. See `Backend.spikes_wait_as_bytes`."""

from keras import ops

from keras_ratesnn._core import keras_internals
from keras_ratesnn._core.backend import engine


def waiting_as_bytes(tensors, index, outputs):
    """The outputs of the first node that reads these spikes, which are bytes from then
    on until the others do."""
    spikes = tensors[index]
    counts, after = engine.optimization_barrier((ops.cast(spikes, "uint8"), outputs))
    again = ops.cast(counts, spikes.dtype)
    tensors[index] = keras_internals.masked_as(again, spikes)
    return list(map(keras_internals.masked_as, after, outputs))


def rates_of_node(handler, state, inputs, known):
    """`(rates, loss)` of a node. What its weights need of the rates of spikes is
    computed again from bytes in the backward pass.

    Args:
        handler: `Handler`.
        state: Its state.
        inputs: List of tensors, its rates.
        known: Dictionary of rates, each with a function that computes its value again,
            by their identity; it is given those of the node.
    """
    kind, sources = handler.kind, [known[id(x)][1] for x in inputs if id(x) in known]

    def again(*rates):
        values = [source() for source in sources]
        grafted = [
            engine.graft(value, rate, 1.0)
            for value, rate in zip(values, rates, strict=True)
        ]
        return handler.rates(state, grafted or inputs)

    is_affine = kind.affine and len(sources) == len(inputs)
    if is_affine and not kind.parameter_free:
        return engine.again(again, *inputs)
    rates, loss = handler.rates(state, inputs)
    if handler.waits_as_bytes or is_affine:
        (rate,) = rates
        known[id(rate)] = rate, lambda: again(*inputs[: len(sources)])[0][0]
    return rates, loss
