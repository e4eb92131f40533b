"""Knowledge distillation from or into spiking networks."""

import inspect
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_ratesnn import _graph
from keras_ratesnn._core import checks, keras_internals, registry, time_axis
from keras_ratesnn._core.annotations import Config, Structure, Tensor
from keras_ratesnn._core.names import listed
from keras_ratesnn._model.fit_callbacks import around_fit, in_order
from keras_ratesnn._model.layer_configs import warn_of_shared
from keras_ratesnn._model.trainer import Trainer
from keras_ratesnn._model.undifferentiated import undifferentiated
from keras_ratesnn.spiking_model import SpikingModel


@registry.register
class Distiller(
    Trainer,
    keras_internals.ExtractsFeatures,
    keras.distillation.Distiller,
):
    """A `keras.distillation.Distiller` whose teacher or student may be a
    `SpikingModel`.

    Distillation of outputs compares time means. With
    `keras.distillation.FeatureDistillation`, the features of a `SpikingModel` are time
    means as well: for a neuron layer, its firing rates. (Keras' own Distiller would
    read features from the network of one time step.) As in Keras, features cost another
    forward pass of both models. The layers whose features are compared must be called
    once in their network; a nested model counts as one layer. With mixed precision the
    losses are computed in float32. `LogitsDistillation()` compares softmax
    probabilities, as Keras documents; in Keras 3.15 it compares logits. An ordinary
    model of whole sequences, `(batch, timesteps, ...)`, fits a `SpikingModel` whose
    network takes one frame.

    Example:

    >>> inputs = keras.Input((4,))
    >>> teacher = keras.Model(
    ...     inputs,
    ...     keras.layers.Dense(3)(
    ...         keras.layers.Dense(8, activation="relu", name="features")(inputs)
    ...     ),
    ... )
    >>> student = keras_ratesnn.spikify(teacher, timesteps=4, verbose=False)
    >>> losses = [
    ...     keras.distillation.LogitsDistillation(temperature=3.0),
    ...     keras.distillation.FeatureDistillation(
    ...         "mse", "features", "features_neuron"
    ...     ),
    ... ]
    >>> distiller = Distiller(teacher, student, losses)
    >>> distiller.compile(
    ...     "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ... )
    >>> history = distiller.fit(np.ones((8, 4)), np.zeros(8), verbose=0)

    Args:
        teacher: A trained Keras model, which is frozen.
        student: The Keras model to train.
        distillation_losses: A `keras.distillation.DistillationLoss`, or a list of them.
        *args: As in `keras.distillation.Distiller`.
        **kwargs: As in `keras.distillation.Distiller`.

    Raises:
        TypeError: If `teacher` or `student` is not a Keras model, or
            `distillation_losses` are not such losses.
        ValueError: If the student would train weights of the teacher.
    """

    def __init__(
        self,
        teacher: keras.Model,
        student: keras.Model,
        distillation_losses: Any,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        for name, model in (("teacher", teacher), ("student", student)):
            checks.instance(name, model, keras.Model)
        known = {id(variable) for variable in teacher.variables}
        if shared := [
            variable.path
            for variable in student.trainable_variables
            if id(variable) in known
        ]:
            raise ValueError(
                "`student` must not train weights of `teacher`, which is frozen. "
                f"Received: models that share {listed(shared)}. Give the teacher "
                "weights of its own, copy.deepcopy(teacher), or freeze these layers."
            )
        losses = (
            distillation_losses
            if isinstance(distillation_losses, (list, tuple))
            else [distillation_losses]
        )
        for loss in losses:
            checks.instance(
                "distillation_losses",
                loss,
                keras.distillation.DistillationLoss,
                advice="Pass for example keras.distillation.LogitsDistillation(), or a "
                "list of such losses.",
            )
        super().__init__(
            teacher,
            student,
            keras.tree.map_structure(_comparing_probabilities, distillation_losses),
            *args,
            **kwargs,
        )

    def compared_inputs(self, model: keras.Model, other: keras.Model) -> Any:
        """The symbolic inputs of a model; those of a `SpikingModel` with time where the
        other model has one axis more."""
        own = getattr(model, "inputs", None) or []
        other_inputs = getattr(other, "inputs", None) or []
        if not isinstance(model, SpikingModel) or len(own) != len(other_inputs):
            return own or None
        return [
            _with_time(mine, model.timesteps, len(theirs.shape))
            for mine, theirs in zip(own, other_inputs, strict=True)
        ]

    def feature_model(self, model: keras.Model, layer_names: list[str]) -> keras.Model:
        """A model with the outputs of another as `"final_output"`, and those of its
        layers by name."""
        is_spiking = isinstance(model, SpikingModel)
        network = _graph.as_graph(
            model.network if is_spiking else model, "student or teacher"
        )
        outputs = {"final_output": keras_internals.outputs_structure(network)}
        argument = (
            "student_layer_name" if model is self.student else "teacher_layer_name"
        )
        outputs |= {
            name: _graph.output_of(network, name, argument) for name in layer_names
        }
        features = keras.Model(keras_internals.inputs_structure(network), outputs)
        if not is_spiking:
            return features
        spiking = SpikingModel(
            features,
            model.timesteps,
            model.gradient,
            model.step_mode,
            dtype=model.dtype_policy,
        )
        return _followed(spiking, model)

    def _settings(self) -> tuple[Any, ...]:
        self._follow_models()
        return tuple(
            model._settings()
            for model in (self.teacher, self.student)
            if isinstance(model, SpikingModel)
        )

    def _follow_models(self) -> None:
        for model, features in self._feature_models():
            if isinstance(features, SpikingModel):
                _followed(features, model)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        # For training loops of users.
        self._follow_models()
        y_pred = self(x, training=training) if y_pred is None else y_pred
        return super().compute_loss(x, y, _wide(y_pred), sample_weight, training)

    def compute_output_spec(
        self, inputs: Structure, *args: Any, **kwargs: Any
    ) -> Structure:
        return self.student.compute_output_spec(inputs)

    def teacher_features(
        self, extract: Callable[[], Structure], x: Structure
    ) -> Structure:
        """The features of the teacher, which gets no gradient."""
        with undifferentiated():
            extracted = extract()
            reader = next(
                features
                for model, features in self._feature_models()
                if model is self.teacher
            )
            if isinstance(reader, SpikingModel) and self.teacher.return_sequences:
                # It reads means, and the outputs of the student are those of every
                # step, too.
                outputs = self.teacher(x, training=False)
                extracted = {**extracted, "final_output": outputs}
            return keras.tree.map_structure(ops.stop_gradient, _wide(extracted))

    def student_features(self, extract: Callable[[], Structure]) -> Structure:
        """The features of the student."""
        return _wide(extract())

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        asked = inspect.signature(super().fit).bind(*args, **kwargs)
        asked.arguments["callbacks"] = in_order(asked.arguments.get("callbacks"))
        with (
            keras_internals.whole_batches(self),
            around_fit(self, asked.arguments.get("x"), asked.arguments["callbacks"]),
        ):
            return super().fit(*asked.args, **asked.kwargs)

    @keras_internals.keeps_state
    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        with keras_internals.whole_batches(self):
            return super().evaluate(*args, **kwargs)

    predict = keras_internals.keeps_state(keras.Model.predict)

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Any = None,
        metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Like `keras.distillation.Distiller.compile`: `loss` is that of the student.

        On PyTorch `jit_compile` says what becomes of a `SpikingModel`, see
        `SpikingModel.compile`.
        """
        super().compile(optimizer, loss, metrics, **kwargs)
        self._loss_of_student = loss
        for model in (self.teacher, self.student):
            if isinstance(model, SpikingModel):
                model._asked_jit_compile = self._asked_jit_compile

    def save(self, *args: Any, **kwargs: Any) -> None:
        warn_of_shared(self.teacher, self.student)
        return super().save(*args, **kwargs)

    def get_compile_config(self) -> Config | None:
        config = super().get_compile_config()
        return config and {
            **config,
            "loss": keras.saving.serialize_keras_object(self._loss_of_student),
        }


def _followed(features: SpikingModel, model: SpikingModel) -> SpikingModel:
    """A model that reads features of another, with the settings that the other has now:
    they can be changed at any time."""
    if features._draws is not model._draws:
        # Not one of its own: Keras on JAX has collected the variables when a step
        # begins.
        keras_internals.set_state(features, "_draws", model._draws)
    for setting in (
        "timesteps",
        "gradient",
        "step_mode",
        "mask_value",
        "_asked_jit_compile",
    ):
        if getattr(features, setting) is not getattr(model, setting):
            setattr(features, setting, getattr(model, setting))
    return features


def _with_time(tensor: Tensor, timesteps: int, axes: int) -> Tensor:
    """A symbolic input of one time step, with a time axis if it then has this number of
    axes."""
    batch, *step = tensor.shape
    return (
        keras.KerasTensor((batch, timesteps, *step), tensor.dtype)
        if axes == len(step) + 2
        else tensor
    )


def _comparing_probabilities(loss: Any) -> Any:
    """A loss in which the name "kl_divergence" means the divergence of softmax
    probabilities, as Keras documents it.

    Keras 3.15 looks the name up as a function, but applies a softmax only for the class
    `KLDivergence`: the default of `LogitsDistillation` compares clipped logits, and its
    minimum is not where student and teacher agree (docs/upstream.md).
    """
    if type(loss) is not keras.distillation.LogitsDistillation:
        return loss

    def repaired(loss_of_output):
        return (
            keras.losses.KLDivergence()
            if loss_of_output is keras.losses.kl_divergence
            else loss_of_output
        )

    return keras.distillation.LogitsDistillation(
        loss.temperature, keras.tree.map_structure(repaired, loss.loss)
    )


def _wide(outputs: Structure) -> Structure:
    """Outputs in float32 or wider: a softmax in half precision is too coarse to
    compare."""
    return keras.tree.map_structure(time_axis.widen, outputs)
