"""Knowledge distillation from or into spiking networks."""

from typing import Any

import keras

from keras_ratesnn import _graph
from keras_ratesnn._core import keras_internals, registry
from keras_ratesnn._core.annotations import Config
from keras_ratesnn.spiking_model import SpikingModel


@registry.register
class Distiller(keras_internals.ExtractsFeatures, keras.distillation.Distiller):
    """A `keras.distillation.Distiller` whose teacher or student may be a `SpikingModel`.

    Distillation of outputs compares time means. With `keras.distillation.FeatureDistillation`, the features of a
    `SpikingModel` are time means as well: for a neuron layer, its firing rates. (Keras' own Distiller would read features from
    the network of one time step.) As in Keras, features cost another forward pass of both models.

    Example:

    >>> inputs = keras.Input((4,))
    >>> teacher = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Dense(8, activation="relu", name="features")(inputs)))
    >>> student = keras_ratesnn.spikify(teacher, timesteps=4, verbose=False)
    >>> losses = [
    ...     keras.distillation.LogitsDistillation(temperature=3.0),
    ...     keras.distillation.FeatureDistillation("mse", "features", "features_neuron"),
    ... ]
    >>> distiller = Distiller(teacher, student, losses)
    >>> distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> history = distiller.fit(np.ones((8, 4)), np.zeros(8), verbose=0)

    Args:
        teacher: A trained Keras model, which is frozen.
        student: The Keras model to train.
        distillation_losses: A `keras.distillation.DistillationLoss`, or a list of them.
        **kwargs: As in `keras.distillation.Distiller`.
    """

    def feature_model(self, model: keras.Model, layer_names: list[str]) -> keras.Model:
        """A model with the outputs of another as `"final_output"`, and those of its layers by name."""
        is_spiking = isinstance(model, SpikingModel)
        network = _graph.as_graph(model.network if is_spiking else model, "student or teacher")
        outputs = {"final_output": keras_internals.outputs_structure(network)}
        outputs |= {name: network.get_layer(name).output for name in layer_names}
        features = keras.Model(keras_internals.inputs_structure(network), outputs)
        return SpikingModel(features, model.timesteps, model.gradient, model.step_mode) if is_spiking else features

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        for model, features in self._feature_models():
            # As they are now: they can be changed at any time.
            for setting in ("timesteps", "gradient", "step_mode") if isinstance(features, SpikingModel) else ():
                if getattr(features, setting) is not getattr(model, setting):
                    setattr(features, setting, getattr(model, setting))
        return super().compute_loss(*args, **kwargs)

    def compile(self, optimizer: Any = "adam", loss: Any = None, metrics: Any = None, **kwargs: Any) -> None:
        """Like `keras.distillation.Distiller.compile`: `loss` is that of the student."""
        super().compile(optimizer, loss, metrics, **kwargs)
        self._loss_of_student = loss

    def get_compile_config(self) -> Config | None:
        config = super().get_compile_config()
        return config and {**config, "loss": keras.saving.serialize_keras_object(self._loss_of_student)}

    def compile_from_config(self, config: Config) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)
