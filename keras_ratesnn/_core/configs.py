"""Configs of layers, losses and metrics, made from their attributes."""

from typing import Any

from keras_ratesnn._core import registry
from keras_ratesnn._core.annotations import Config


def entry(value: Any) -> Any:
    """A value as it stands in a config: what has a config of its own, serialised."""
    return registry.serialize(value) if hasattr(value, "get_config") else value


class ConfigOfAttributes:
    """Mixin: the config has the attributes that `in_config` names, beside what the
    config of the next class has."""

    in_config: tuple[str, ...]

    def get_config(self) -> Config:
        config = super().get_config()  # type: ignore[misc]  # It is that of Keras.
        return config | {name: entry(getattr(self, name)) for name in self.in_config}
