"""Imports of Keras' private modules. If a part is missing, the error says which, and
what to do."""
# What is imported is passed on.
# ruff: noqa: F401

import importlib

import keras

from keras_ratesnn._core.keras_internals.versions import remedy, warn_if_untested

for package in ("keras", keras.backend.backend()):
    warn_if_untested(package, importlib.import_module(package).__version__)
try:
    from keras.src.backend import compute_output_spec
    from keras.src.backend.common.global_state import (
        get_global_attribute,
        set_global_attribute,
    )
    from keras.src.backend.common.masking import get_keras_mask, set_keras_mask
    from keras.src.backend.common.stateless_scope import get_stateless_scope
    from keras.src.backend.common.variables import AutocastScope, get_autocast_scope
    from keras.src.losses.losses import LossFunctionWrapper
    from keras.src.models import functional
    from keras.src.saving.serialization_lib import SafeModeScope
    from keras.src.utils.tracking import TrackedDict, TrackedList, TrackedSet
except ImportError as error:
    raise ImportError(
        f"Keras {keras.__version__} lacks what keras_ratesnn reads of it: {error}. "
        f"{remedy('keras')}"
    ) from error


def torch_core():
    """Keras' module of tensors and devices on PyTorch, which Keras 3.16 keeps in
    another place."""
    try:
        from keras.src.backend.torch.ops import core
    except ImportError:
        from keras.src.backend.torch import core
    return core
