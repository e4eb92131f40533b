"""Neurons and readouts: rules as those of `affine`."""

from typing import Any

from keras import layers

from keras_ratesnn import layers as own
from keras_ratesnn._lowered.affine import weights_of
from keras_ratesnn._lowered.nodes import AffineNode, NeuronNode, ReadoutNode


def _cell_class(layer):
    return getattr(layer.__init__, "cell_class", own.NeuronCell)


LAYERS: dict[Any, Any] = {
    _cell_class(layer): layer
    for layer in map(vars(own).get, own.__all__)
    if any(_cell_class(layer).targets)
}
"""The layers of neurons that a target has, by the classes of their cells."""


def neurons(lowering, layer, wire):
    return _neurons_of(lowering, layer, wire, layer.cell)


def _neurons_of(lowering, layer, wire, cell, feedback=None):
    if not lowering.refusals.has(type(cell)):
        raise lowering.refusals.without_rule(layer)

    def value(name, default=0.0):
        if not hasattr(cell, name):
            return default
        return lowering.values(cell.effective(name), wire)

    threshold = value("threshold")
    stabilizer = getattr(layer, "stabilizer", None)
    if stabilizer is not None:
        threshold = lowering.values(stabilizer.running_threshold, wire)
    node = NeuronNode(
        layer,
        (wire,),
        decay=lowering.values(cell.effective_decay(), wire),
        synaptic_decay=value("synaptic_decay", None),
        decay_input=getattr(cell, "decay_input", False),
        threshold=threshold,
        v_reset=value("v_reset"),
        initial_membrane=value("initial_membrane"),
        reset=getattr(cell, "reset", "soft"),
        reset_delay=getattr(cell, "reset_delay", False),
        levels=cell.levels if "levels" in cell.fixed_arguments else 0,
        spike_size=cell.spike_size,
        cell=cell,
        feedback=feedback,
    )
    return lowering.add(node, wire.order)


def recurrent(lowering, layer, wire):
    synapse = layer.synapse
    is_flat = wire.order is None and len(wire.shape) == 1
    if type(synapse) is not layers.Dense or not is_flat:
        raise lowering.refused(
            layer,
            "spikes can come back through a Dense layer only, to neurons without "
            "Flatten before them.",
        )
    lowering.refusals.check(synapse)
    feedback = AffineNode(synapse, (), (), (), (), *weights_of(synapse))
    return _neurons_of(lowering, layer, wire, layer.neuron, feedback)


def readout(lowering, layer, wire):
    decay = lowering.values(layer.effective("decay"), wire)
    synaptic_decay = None
    if layer.has_current:
        synaptic_decay = lowering.values(layer.effective("synaptic_decay"), wire)
    node = ReadoutNode(layer, (wire,), decay, synaptic_decay, layer.decay_input)
    return lowering.add(node, wire.order)


RULES: dict[type, Any] = {
    **dict.fromkeys((*LAYERS.values(), own.Neuron), neurons),
    own.Recurrent: recurrent,
    own.LeakyReadout: readout,
}
