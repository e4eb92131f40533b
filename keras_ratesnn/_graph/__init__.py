"""The graph of a network: its plan, its inputs, and what networks must be like."""
# What is imported is passed on.
# ruff: noqa: F401

from keras_ratesnn._graph.functional import as_graph, output_of, paths_of
from keras_ratesnn._graph.inputs import match_inputs, tensors_among
from keras_ratesnn._graph.names import Names
from keras_ratesnn._graph.planning import (
    Part,
    PlannedCall,
    Slot,
    last_uses,
    parts_of,
    producers_of,
    whole_of,
)
from keras_ratesnn._graph.requirements import (
    check_length,
    check_mean_of_steps,
    check_network,
    check_padding,
    check_samples_apart,
    check_sequences,
    check_steps,
    check_timesteps,
    check_trainable,
    couples_samples,
    frames_of,
    neurons_of,
    substeps_of,
)
from keras_ratesnn._graph.signal import Signal
