"""All uses of Keras' private API, and nothing else: a file for each concern. What only
graphs of PyTorch need is in `backend/torch/graphs/private_keras.py`.

Each function says which part or fault of Keras it is for. If one breaks,
`tests/core/test_keras_internals.py` shows which.
"""
# What is imported is passed on.
# ruff: noqa: F401

from keras_ratesnn._core.keras_internals.batches import whole_batches
from keras_ratesnn._core.keras_internals.calls import (
    call_aside,
    calling,
    in_call,
    is_outermost,
    take_inputs_unchanged,
    takes_training,
    training_in_graph,
)
from keras_ratesnn._core.keras_internals.collection import (
    CollectsVariablesOnce,
    collected,
)
from keras_ratesnn._core.keras_internals.distillation import ExtractsFeatures
from keras_ratesnn._core.keras_internals.graph import (
    calls_in,
    forget_training,
    functional_of,
    inputs_structure,
    is_graph,
    is_graph_with_other_call,
    name_of_input,
    name_of_node,
    outputs_structure,
    run_through_graph,
    unpack_single,
)
from keras_ratesnn._core.keras_internals.graph_classes import (
    attributes_of,
    graph_class,
    own_classes,
    without_graph,
)
from keras_ratesnn._core.keras_internals.later_arguments import (
    without_later_arguments,
)
from keras_ratesnn._core.keras_internals.layers import (
    is_rematerialized,
    layers_inside,
    own_state,
    with_sublayers,
)
from keras_ratesnn._core.keras_internals.losses import (
    build_loss,
    compiled_loss,
    compiled_metrics,
    forget_losses,
    forget_symbolic_losses,
    loss_of_samples,
)
from keras_ratesnn._core.keras_internals.masks import (
    mask_of,
    masked_as,
    put_mask,
    row_mask,
    take_mask_off,
    with_mask,
)
from keras_ratesnn._core.keras_internals.processes import (
    initialize_no_ddp,
    metrics_here,
)
from keras_ratesnn._core.keras_internals.random import (
    ShiftedSeeds,
    seed_states,
)
from keras_ratesnn._core.keras_internals.saving import (
    LAYERS_OF_A_GRAPH,
    naming_inputs,
    portable,
    without_code,
)
from keras_ratesnn._core.keras_internals.scopes import (
    Closed,
    CollectingScope,
    NoticingScope,
    ReadOnce,
    Replaced,
    Tried,
    Values,
    give_values,
    without_autocast,
    without_values,
)
from keras_ratesnn._core.keras_internals.state import (
    keep_apart,
    keeps_state,
    reattach_state,
    set_state,
    state_shardings,
    torch_parameters,
    values_of,
)
from keras_ratesnn._core.keras_internals.training import (
    StandIn,
    build_metrics,
    make_function,
    plain_build_errors,
)
from keras_ratesnn._core.keras_internals.transfers import (
    in_steps,
    on_device,
    read_together,
)
from keras_ratesnn._core.keras_internals.trees import first_batch, first_tensor
from keras_ratesnn._core.keras_internals.versions import (
    check_saved_models_of_jax,
    warn_if_untested,
)
