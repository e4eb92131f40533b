"""All uses of Keras' private API, and nothing else: a file for each concern.

Each function says which part or fault of Keras it is for. If one breaks,
`tests/core/test_keras_internals.py` shows which.
"""

from keras_ratesnn._core.keras_internals.batches import whole_batches as whole_batches
from keras_ratesnn._core.keras_internals.calls import call_aside as call_aside
from keras_ratesnn._core.keras_internals.calls import calling as calling
from keras_ratesnn._core.keras_internals.calls import is_outermost as is_outermost
from keras_ratesnn._core.keras_internals.calls import (
    take_inputs_unchanged as take_inputs_unchanged,
)
from keras_ratesnn._core.keras_internals.calls import takes_training as takes_training
from keras_ratesnn._core.keras_internals.calls import (
    training_in_graph as training_in_graph,
)
from keras_ratesnn._core.keras_internals.collection import (
    CollectsVariablesOnce as CollectsVariablesOnce,
)
from keras_ratesnn._core.keras_internals.collection import collected as collected
from keras_ratesnn._core.keras_internals.distillation import (
    ExtractsFeatures as ExtractsFeatures,
)
from keras_ratesnn._core.keras_internals.graph import calls_in as calls_in
from keras_ratesnn._core.keras_internals.graph import forget_training as forget_training
from keras_ratesnn._core.keras_internals.graph import functional_of as functional_of
from keras_ratesnn._core.keras_internals.graph import (
    inputs_structure as inputs_structure,
)
from keras_ratesnn._core.keras_internals.graph import is_graph as is_graph
from keras_ratesnn._core.keras_internals.graph import (
    is_graph_with_other_call as is_graph_with_other_call,
)
from keras_ratesnn._core.keras_internals.graph import name_of_input as name_of_input
from keras_ratesnn._core.keras_internals.graph import name_of_node as name_of_node
from keras_ratesnn._core.keras_internals.graph import (
    outputs_structure as outputs_structure,
)
from keras_ratesnn._core.keras_internals.graph import (
    run_through_graph as run_through_graph,
)
from keras_ratesnn._core.keras_internals.graph import unpack_single as unpack_single
from keras_ratesnn._core.keras_internals.graph_classes import (
    attributes_of as attributes_of,
)
from keras_ratesnn._core.keras_internals.graph_classes import graph_class as graph_class
from keras_ratesnn._core.keras_internals.graph_classes import own_classes as own_classes
from keras_ratesnn._core.keras_internals.graph_classes import (
    without_graph as without_graph,
)
from keras_ratesnn._core.keras_internals.layers import (
    ATTRIBUTES_OF_EVERY_LAYER as ATTRIBUTES_OF_EVERY_LAYER,
)
from keras_ratesnn._core.keras_internals.layers import (
    TRACKED_CONTAINERS as TRACKED_CONTAINERS,
)
from keras_ratesnn._core.keras_internals.layers import hooks_of as hooks_of
from keras_ratesnn._core.keras_internals.layers import (
    is_rematerialized as is_rematerialized,
)
from keras_ratesnn._core.keras_internals.layers import layers_inside as layers_inside
from keras_ratesnn._core.keras_internals.layers import own_state as own_state
from keras_ratesnn._core.keras_internals.layers import with_sublayers as with_sublayers
from keras_ratesnn._core.keras_internals.losses import build_loss as build_loss
from keras_ratesnn._core.keras_internals.losses import compiled_loss as compiled_loss
from keras_ratesnn._core.keras_internals.losses import (
    compiled_metrics as compiled_metrics,
)
from keras_ratesnn._core.keras_internals.losses import forget_losses as forget_losses
from keras_ratesnn._core.keras_internals.losses import (
    forget_symbolic_losses as forget_symbolic_losses,
)
from keras_ratesnn._core.keras_internals.losses import (
    loss_of_samples as loss_of_samples,
)
from keras_ratesnn._core.keras_internals.masks import mask_of as mask_of
from keras_ratesnn._core.keras_internals.masks import put_mask as put_mask
from keras_ratesnn._core.keras_internals.masks import row_mask as row_mask
from keras_ratesnn._core.keras_internals.masks import take_mask_off as take_mask_off
from keras_ratesnn._core.keras_internals.masks import with_mask as with_mask
from keras_ratesnn._core.keras_internals.processes import (
    initialize_no_ddp as initialize_no_ddp,
)
from keras_ratesnn._core.keras_internals.processes import metrics_here as metrics_here
from keras_ratesnn._core.keras_internals.random import ShiftedSeeds as ShiftedSeeds
from keras_ratesnn._core.keras_internals.random import (
    in_stateless_scope as in_stateless_scope,
)
from keras_ratesnn._core.keras_internals.random import seed_states as seed_states
from keras_ratesnn._core.keras_internals.random import (
    torch_generators_from as torch_generators_from,
)
from keras_ratesnn._core.keras_internals.saving import (
    LAYERS_OF_A_GRAPH as LAYERS_OF_A_GRAPH,
)
from keras_ratesnn._core.keras_internals.saving import naming_inputs as naming_inputs
from keras_ratesnn._core.keras_internals.saving import portable as portable
from keras_ratesnn._core.keras_internals.saving import without_code as without_code
from keras_ratesnn._core.keras_internals.scopes import (
    CollectingScope as CollectingScope,
)
from keras_ratesnn._core.keras_internals.scopes import NoticingScope as NoticingScope
from keras_ratesnn._core.keras_internals.scopes import ReadOnce as ReadOnce
from keras_ratesnn._core.keras_internals.scopes import Replaced as Replaced
from keras_ratesnn._core.keras_internals.scopes import Tried as Tried
from keras_ratesnn._core.keras_internals.scopes import Values as Values
from keras_ratesnn._core.keras_internals.scopes import autocast_dtype as autocast_dtype
from keras_ratesnn._core.keras_internals.scopes import give_values as give_values
from keras_ratesnn._core.keras_internals.scopes import (
    without_autocast as without_autocast,
)
from keras_ratesnn._core.keras_internals.scopes import without_values as without_values
from keras_ratesnn._core.keras_internals.state import assign as assign
from keras_ratesnn._core.keras_internals.state import keep_apart as keep_apart
from keras_ratesnn._core.keras_internals.state import keeps_state as keeps_state
from keras_ratesnn._core.keras_internals.state import reattach_state as reattach_state
from keras_ratesnn._core.keras_internals.state import set_state as set_state
from keras_ratesnn._core.keras_internals.state import state_shardings as state_shardings
from keras_ratesnn._core.keras_internals.state import (
    torch_parameters as torch_parameters,
)
from keras_ratesnn._core.keras_internals.state import values_of as values_of
from keras_ratesnn._core.keras_internals.training import StandIn as StandIn
from keras_ratesnn._core.keras_internals.training import build_metrics as build_metrics
from keras_ratesnn._core.keras_internals.training import make_function as make_function
from keras_ratesnn._core.keras_internals.training import (
    plain_build_errors as plain_build_errors,
)
from keras_ratesnn._core.keras_internals.transfers import in_steps as in_steps
from keras_ratesnn._core.keras_internals.transfers import on_device as on_device
from keras_ratesnn._core.keras_internals.transfers import read_together as read_together
from keras_ratesnn._core.keras_internals.trees import first_tensor as first_tensor
from keras_ratesnn._core.keras_internals.versions import (
    warn_if_untested as warn_if_untested,
)
