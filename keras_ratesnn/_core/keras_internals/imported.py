"""Imports of Keras' private modules. If a part is missing, the error says which, and
what to do."""

import keras

from keras_ratesnn._core.keras_internals.versions import REMEDY, warn_if_untested

warn_if_untested(keras.__version__)
try:
    from keras.src.backend import compute_output_spec as compute_output_spec
    from keras.src.backend.common.global_state import (
        get_global_attribute as get_global_attribute,
    )
    from keras.src.backend.common.global_state import (
        set_global_attribute as set_global_attribute,
    )
    from keras.src.backend.common.masking import get_keras_mask as get_keras_mask
    from keras.src.backend.common.masking import set_keras_mask as set_keras_mask
    from keras.src.backend.common.stateless_scope import (
        get_stateless_scope as get_stateless_scope,
    )
    from keras.src.backend.common.variables import AutocastScope as AutocastScope
    from keras.src.backend.common.variables import (
        get_autocast_scope as get_autocast_scope,
    )
    from keras.src.losses.losses import LossFunctionWrapper as LossFunctionWrapper
    from keras.src.models import functional as functional
    from keras.src.saving.serialization_lib import SafeModeScope as SafeModeScope
    from keras.src.utils.tracking import TrackedDict as TrackedDict
    from keras.src.utils.tracking import TrackedList as TrackedList
    from keras.src.utils.tracking import TrackedSet as TrackedSet
except ImportError as error:
    raise ImportError(
        f"Keras {keras.__version__} lacks what keras_ratesnn reads of it: {error}. "
        f"{REMEDY}"
    ) from error


def torch_core():
    """Keras' module of tensors and devices on PyTorch, which Keras 3.16 keeps in
    another place."""
    try:
        from keras.src.backend.torch.ops import core
    except ImportError:
        from keras.src.backend.torch import core
    return core
