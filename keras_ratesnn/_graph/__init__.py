"""The graph of a network: its walk, its inputs, and its requirements for networks."""

from keras_ratesnn._graph.functional import as_graph as as_graph
from keras_ratesnn._graph.functional import output_of as output_of
from keras_ratesnn._graph.functional import paths_of as paths_of
from keras_ratesnn._graph.inputs import match_inputs as match_inputs
from keras_ratesnn._graph.inputs import tensors_among as tensors_among
from keras_ratesnn._graph.nodes import nodes_of as nodes_of
from keras_ratesnn._graph.planning import Part as Part
from keras_ratesnn._graph.planning import PlannedCall as PlannedCall
from keras_ratesnn._graph.planning import Slot as Slot
from keras_ratesnn._graph.planning import last_uses as last_uses
from keras_ratesnn._graph.planning import parts_of as parts_of
from keras_ratesnn._graph.planning import whole_of as whole_of
from keras_ratesnn._graph.requirements import check_length as check_length
from keras_ratesnn._graph.requirements import check_network as check_network
from keras_ratesnn._graph.requirements import check_padding as check_padding
from keras_ratesnn._graph.requirements import check_sequences as check_sequences
from keras_ratesnn._graph.requirements import check_steps as check_steps
from keras_ratesnn._graph.requirements import check_timesteps as check_timesteps
from keras_ratesnn._graph.requirements import first_other_value as first_other_value
from keras_ratesnn._graph.requirements import first_time_mean as first_time_mean
from keras_ratesnn._graph.requirements import neurons_of as neurons_of
from keras_ratesnn._graph.requirements import slots_of as slots_of
from keras_ratesnn._graph.walk import Call as Call
from keras_ratesnn._graph.walk import Signal as Signal
from keras_ratesnn._graph.walk import walk as walk
