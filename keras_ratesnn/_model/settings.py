"""The settings of a model, which may change at any time, even during `fit`."""

import copy
import inspect
import weakref
from collections.abc import Callable
from typing import Any, Self

import keras

from keras_ratesnn import _graph, gradients
from keras_ratesnn._core import checks, keras_internals, registry
from keras_ratesnn._core.annotations import Config, StepModeName
from keras_ratesnn._core.other_names import check_attribute_name, refuse_other_names
from keras_ratesnn._model import layer_configs
from keras_ratesnn._model.other_names import OTHER_NAMES
from keras_ratesnn._model.time_masks import checked_mask_value
from keras_ratesnn.gradients import GradientMethod
from keras_ratesnn.gradients.lookup import BY_NAME

STEP_MODES: tuple[StepModeName, ...] = ("multi", "single")


class Settings:
    """Gives a `keras.Model` with a `network` settings, its config, and checks what is
    assigned to its attributes."""

    network: keras.Model
    _inputs_with_time: tuple[str, ...] | None
    _draws: keras.random.SeedGenerator | None
    _named_methods: dict[str, GradientMethod]
    _checked_network: Callable[[], keras.Model | None]

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "network" and hasattr(self, name):
            # Keras would keep the weights of the first one, too.
            raise AttributeError(
                f"`network` of a {type(self).__name__} cannot be replaced. Received: "
                f"network={value!r}. Make a new model, SpikingModel(network, "
                "timesteps); the weights of layers in both are shared."
            )
        check_attribute_name(OTHER_NAMES, self, name, value)
        super().__setattr__(name, value)
        if name == "trainable":
            # On TensorFlow Keras does nothing for the layers in a model that has this
            # value already.
            for layer in keras_internals.with_sublayers(self):
                keras.Layer.trainable.fset(layer, value)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        # Before Python sees that an argument is missing which has another name.
        known = inspect.signature(cls).parameters
        unknown = {name: kwargs[name] for name in kwargs if name not in known}
        refuse_other_names(OTHER_NAMES, cls.__name__, unknown)
        if len(args) == 1 and "timesteps" in known and "timesteps" not in kwargs:
            raise TypeError(
                f"{cls.__name__} needs `timesteps`, the number of time steps that the "
                "network runs for. Received: the network alone. For still images start "
                "with 4: SpikingModel(network, timesteps=4)."
            )
        return super().__new__(cls, *args, **kwargs)

    @property
    def timesteps(self) -> int:
        """The number of time steps T. It can be changed to run the same weights for
        more or fewer steps, even during `fit`."""
        return self._timesteps

    @timesteps.setter
    def timesteps(self, value: int) -> None:
        advice = "It is the number of time steps that the network runs for."
        timesteps = checks.positive_integer("timesteps", value, advice=advice)
        _graph.check_timesteps(_graph.as_graph(self.network), timesteps)
        self._timesteps = timesteps

    @property
    def gradient(self) -> GradientMethod:
        """The `GradientMethod`. Assign a method or a name to continue training with
        another one."""
        return self._gradient

    @gradient.setter
    def gradient(self, value: str | GradientMethod | Config) -> None:
        method = gradients.get(value)
        if isinstance(value, str):
            # The same object as before, since calls are recorded for it.
            method = self._named_methods.setdefault(value, method)
        method.check(_graph.neurons_of(_graph.as_graph(self.network)))
        if method.uses_random_numbers and self._draws is None:
            keras_internals.set_state(self, "_draws", keras.random.SeedGenerator())
        self._gradient = method
        # The config of another class may not tell all: compiled functions belong to
        # this choice.
        self._choice_of_gradient = (
            None if type(method) in BY_NAME.values() else object()
        )

    @property
    def step_mode(self) -> StepModeName:
        """`"multi"` or `"single"`. It can be changed."""
        return self._step_mode

    @step_mode.setter
    def step_mode(self, value: StepModeName) -> None:
        step_mode = checks.one_of("step_mode", value, STEP_MODES)
        self._check_steps(step_mode)
        self._step_mode = step_mode

    def _checked_graph(self):
        """The graph of the network, which is checked again if it is a Sequential that
        has been given other layers."""
        functional = _graph.as_graph(self.network)
        if functional is not self._checked_network():
            _graph.check_network(functional)
            _graph.check_timesteps(functional, self.timesteps)
            # TensorFlow leaves an assignment out that would change nothing.
            Settings.gradient.fset(self, self.gradient)  # type: ignore[attr-defined]
            self._checked_network = weakref.ref(functional)
        return functional

    def _check_steps(self, step_mode):
        if step_mode == "single":
            _graph.check_steps(_graph.as_graph(self.network), '`step_mode="single"`')

    @property
    def return_sequences(self) -> bool:
        """Whether the output is that of every step. It can be changed, for example to
        read every step of a trained model."""
        return self._return_sequences

    @return_sequences.setter
    def return_sequences(self, value: bool) -> None:
        return_sequences = checks.boolean("return_sequences", value)
        if return_sequences:
            _graph.check_sequences(_graph.as_graph(self.network))
        self._return_sequences = return_sequences

    @property
    def mask_value(self) -> float | None:
        """The value of all elements of a time step that is padding, or `None`. It can
        be changed."""
        return self._mask_value

    @mask_value.setter
    def mask_value(self, value: float | None) -> None:
        self._mask_value = checked_mask_value(value)

    def _settings(self) -> tuple[Any, ...]:
        # NaN is not equal to itself.
        mask_value = repr(self._mask_value)
        gradient = type(self._gradient), repr(self._gradient), self._choice_of_gradient
        return (
            self._timesteps,
            self._return_sequences,
            self._step_mode,
            gradient,
            mask_value,
        )

    def get_config(self) -> Config:
        return {
            **super().get_config(),  # type: ignore[misc]
            "network": layer_configs.serialized(self.network),
            "timesteps": self.timesteps,
            "gradient": registry.serialize(self.gradient),
            "step_mode": self.step_mode,
            "return_sequences": self.return_sequences,
            "mask_value": self.mask_value,
            "inputs_with_time": None
            if self._inputs_with_time is None
            else list(self._inputs_with_time),
        }

    @classmethod
    def from_config(
        cls, config: Config, custom_objects: dict[str, Any] | None = None
    ) -> Self:
        # Keras empties the config of a Functional model.
        saved = copy.deepcopy(config["network"])
        network = keras.saving.deserialize_keras_object(
            keras_internals.without_later_arguments(saved),
            custom_objects=custom_objects,
        )
        return cls(**{**config, "network": network})
