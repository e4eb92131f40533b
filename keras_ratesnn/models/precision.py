"""Networks that are made already, in another precision."""

from typing import Any

import keras

from keras_ratesnn._core import checks, time_axis, tree
from keras_ratesnn._core.dtype_policy import global_policy


def in_precision(
    model: keras.Model, dtype: str | keras.DTypePolicy | None = None
) -> keras.Model:
    """The model in another precision: a copy with the same weights, or itself if all
    its layers have that policy.

    Layers with quantized weights keep their policies, which describe how their weights
    are stored.

    Example:

    >>> model = keras_ratesnn.models.load_pretrained("digits", dtype="mixed_bfloat16")
    >>> in_precision(model, "float32").compute_dtype
    'float32'

    Args:
        model: A built `SpikingModel`, or another Keras model that can be serialized.
        dtype: The dtype policy of all layers, as `"mixed_bfloat16"`. Defaults to
            `None`, Keras' global policy.

    Returns:
        A Keras model, not compiled if it is a copy.

    Raises:
        TypeError: If `model` is no Keras model.
        ValueError: If `dtype` is no policy of floats.
    """
    checks.instance("model", model, keras.Model)
    policy = checked_policy(dtype)
    config = keras.saving.serialize_keras_object(model)
    serialized = keras.saving.serialize_keras_object(policy)
    # Also in the configurations of layers inside layers.
    changed = tree.map_dicts(
        lambda part: (
            serialized if part.get("class_name") == serialized["class_name"] else part
        ),
        config,
    )
    if changed == config:
        return model
    # The configuration of a functional model has no policy: it takes the global one.
    with global_policy(policy):
        copy = keras.saving.deserialize_keras_object(
            {**changed, "compile_config": None}
        )
    copy.set_weights(model.get_weights())
    return copy


def checked_policy(dtype: Any) -> keras.DTypePolicy:
    """`dtype` as a policy of floats."""
    try:
        policy = (
            keras.config.dtype_policy()
            if dtype is None
            else keras.dtype_policies.get(dtype)
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            "`dtype` must be the name of a dtype policy, such as 'float32' or "
            f"'mixed_bfloat16', or None. Received: dtype={dtype!r}."
        ) from error
    if policy.quantization_mode is not None:
        raise ValueError(
            "`dtype` must not be a policy of quantized layers. Received: "
            f"dtype={dtype!r}, the policy {policy.name!r}. Load the network in a "
            "policy of floats, and call model.quantize('int8')."
        )
    if not all(map(time_axis.is_float, (policy.compute_dtype, policy.variable_dtype))):
        raise ValueError(
            "`dtype` must be a policy of floats, such as 'float32' or "
            f"'mixed_bfloat16'. Received: dtype={dtype!r}, the policy {policy.name!r}."
        )
    return policy
