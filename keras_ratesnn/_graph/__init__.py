"""The graph of a network: its walk, its inputs, and its requirements for networks."""

from keras_ratesnn._graph.functional import as_graph, output_of, paths_of
from keras_ratesnn._graph.inputs import match_inputs, tensors_among
from keras_ratesnn._graph.planning import Part, PlannedCall, Slot, last_uses, parts_of, whole_of
from keras_ratesnn._graph.requirements import (
    check_length,
    check_network,
    check_padding,
    check_sequences,
    check_steps,
    check_timesteps,
    check_trainable,
    first_time_mean,
    frames_of,
    neurons_of,
    slots_of,
)
from keras_ratesnn._graph.walk import Call, Signal, walk

__all__ = [
    "Call",
    "Part",
    "PlannedCall",
    "Signal",
    "Slot",
    "as_graph",
    "check_length",
    "check_network",
    "check_padding",
    "check_sequences",
    "check_steps",
    "check_timesteps",
    "check_trainable",
    "first_time_mean",
    "frames_of",
    "last_uses",
    "match_inputs",
    "neurons_of",
    "output_of",
    "parts_of",
    "paths_of",
    "slots_of",
    "tensors_among",
    "walk",
    "whole_of",
]
