"""The precision of a network that is made already."""

import keras

from keras_ratesnn._core.dtype_policy import global_policy


def in_precision(network, policy):
    """The network with another dtype policy: a copy with the same weights, or itself if all its layers have that policy.

    Layers with quantised weights keep their policies, which describe how their weights are stored.

    Args:
        network: A built Keras model that can be serialised.
        policy: A `keras.DTypePolicy`.
    """
    config = keras.saving.serialize_keras_object(network)
    changed = _changed(config, keras.saving.serialize_keras_object(policy))
    if changed == config:
        return network
    # The configuration of a functional model has no policy: it takes the global one.
    with global_policy(policy):
        copy = keras.saving.deserialize_keras_object(changed)
    copy.set_weights(network.get_weights())
    return copy


def _changed(config, policy):
    """The configuration with another policy, also in the configurations of layers inside layers."""
    if isinstance(config, dict):
        if config.get("class_name") == policy["class_name"]:
            return policy
        return {key: _changed(value, policy) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_changed(value, policy) for value in config)
    return config
