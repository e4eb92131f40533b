"""Measure every few epochs, and once when `fit` starts."""

import abc
from typing import Any

import keras

from keras_ratesnn import analysis, gradients
from keras_ratesnn._core import checks
from keras_ratesnn._core.annotations import Config, Structure
from keras_ratesnn.callbacks._measured import measured
from keras_ratesnn.distillation import Distiller
from keras_ratesnn.gradients import GradientMethod


class EveryEpochs(keras.callbacks.Callback, abc.ABC):
    """Adds measurements to the logs of each epoch. Epochs without one repeat the
    latest, so that all have the same columns.

    Args:
        every: Integer n >= 1: measures after the first epoch of `fit`, and after every
            epoch whose number, counted from 0, is a multiple of n.

    Raises:
        TypeError: If `every` is not an integer.
        ValueError: If it is not >= 1.
    """

    adds_to_logs = True

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = checks.positive_integer(
            "every", every, advice="It is the number of epochs between measurements."
        )
        self._latest: dict[str, float] = {}

    @abc.abstractmethod
    def measure(self) -> dict[str, float]:
        """The measurements, by their names in the logs."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        # Data that do not fit must not end a run after its first epoch.
        self.measure()
        self._latest = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not self._latest or epoch % self.every == 0:
            self._latest = self.measure()
        if logs is not None:
            logs.update(self._latest)


class AccuracyOverTime(EveryEpochs):
    """Adds the accuracy after each time step to the logs: how early the model could
    stop, at this point of its training.

    The logs have `"accuracy_over_time/t1"` to `"accuracy_over_time/tT"`, see
    `keras_ratesnn.analysis.accuracy_over_time`. The model needs neither
    `return_sequences=True` nor a loss on each step's output; with these,
    `keras_ratesnn.metrics` has the same as a metric. Epochs without a measurement
    repeat the latest values. Training is not affected. For a `Distiller`, the student
    is measured.

    A measurement costs a forward pass over `x` in eager mode. There is one more when
    `fit` starts, so that data that do not fit are found then.

    Example:

    >>> inputs = keras.Input((4,))
    >>> network = keras.Model(
    ...     inputs, keras.layers.Dense(2)(keras_ratesnn.layers.LIF()(inputs))
    ... )
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=2)
    >>> model.compile(
    ...     "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ... )
    >>> x, y = np.ones((8, 4)), np.zeros(8)
    >>> history = model.fit(
    ...     x, y, callbacks=[keras_ratesnn.callbacks.AccuracyOverTime(x, y)], verbose=0
    ... ).history
    >>> sorted(history)
    ['accuracy_over_time/t1', 'accuracy_over_time/t2', 'loss']

    Args:
        x: Inputs, as for `model.predict`.
        y: Array, the labels: class indices, one-hot vectors, or 0 and 1 for each
            output, as for `"accuracy"` in Keras.
        every: Integer n >= 1: measures after the first epoch of `fit`, and after every
            epoch whose number, counted from 0, is a multiple of n. Defaults to `1`.
        timesteps: Integer T >= 1, the largest number of steps. Defaults to `None`, that
            of the model when `fit` starts.
        threshold: Float, the output above which a binary label is 1; 0 for logits.
            Defaults to `0.5`.

    Raises:
        TypeError: If `every` or `timesteps` is not an integer, or `threshold` not a
            number.
        ValueError: If `every` or `timesteps` is not >= 1; when `fit` starts, for the
            reasons of `keras_ratesnn.analysis.accuracy_over_time`.
    """

    def __init__(
        self,
        x: Structure,
        y: Any,
        every: int = 1,
        timesteps: int | None = None,
        threshold: float = 0.5,
    ) -> None:
        super().__init__(every)
        self.x = x
        self.y = y
        self.timesteps = (
            None
            if timesteps is None
            else checks.positive_integer("timesteps", timesteps)
        )
        self.threshold = checks.real("threshold", threshold)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        # A schedule may change the T of the model; all epochs have the same columns.
        self._largest = (
            measured(self.model).timesteps if self.timesteps is None else self.timesteps
        )
        super().on_train_begin(logs)

    def measure(self) -> dict[str, float]:
        model = measured(self.model)
        result = analysis.accuracy_over_time(
            model, self.x, self.y, self._largest, threshold=self.threshold, verbose=0
        )
        return {
            f"accuracy_over_time/t{t}": accuracy
            for t, accuracy in enumerate(result.accuracy.tolist(), 1)
        }


class GradientAgreement(EveryEpochs):
    """Adds to the logs how close the gradients of the model's method are to those of
    another method, on a fixed batch.

    For the kernel of each layer the logs have `"gradient_cosine/LAYER"` and
    `"gradient_norm_ratio/LAYER"`, see `keras_ratesnn.analysis.gradient_agreement`.
    Epochs without a measurement repeat the latest values, so that every epoch has the
    same columns. Training is not affected: weights, moving statistics and seeds do not
    change. For a `keras_ratesnn.distillation.Distiller`, the student is measured, with
    its own loss and without those of the teacher.

    A measurement costs one training step with each method on the batch, in eager mode.
    This takes as long as about 10 to 40 compiled steps on TensorFlow and JAX, and 3 on
    PyTorch. There is one more when `fit` starts, so that data that do not fit are found
    then.

    Example:

    >>> inputs = keras.Input((4,))
    >>> network = keras.Model(
    ...     inputs,
    ...     keras.layers.Dense(2, name="outputs")(keras_ratesnn.layers.LIF()(inputs)),
    ... )
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4)
    >>> model.compile("sgd", "mse")
    >>> x, y = np.ones((8, 4)), np.ones((8, 2))
    >>> callback = keras_ratesnn.callbacks.GradientAgreement(x, y)
    >>> history = model.fit(x, y, callbacks=[callback], verbose=0).history
    >>> [round(cosine, 3) for cosine in history["gradient_cosine/outputs"]]
    [1.0]

    Args:
        x: A batch of inputs, as for `fit`. It is processed as one batch.
        y: Its labels.
        every: Integer n >= 1: measures after the first epoch of `fit`, and after every
            epoch whose number, counted from 0, is a multiple of n. Defaults to `1`.
        other: Name or `GradientMethod`, the method to compare with. Defaults to `None`:
            `"bptt"`, or `"rate"` for a model trained by BPTT.

    Raises:
        TypeError: If `every` is not an integer, or `other` is not a method.
        ValueError: If `every` is not >= 1, or the method is unknown; when `fit` starts,
            for the reasons of `keras_ratesnn.analysis.gradient_agreement`.
    """

    def __init__(
        self,
        x: Structure,
        y: Any,
        every: int = 1,
        other: str | GradientMethod | Config | None = None,
    ) -> None:
        super().__init__(every)
        self.x = x
        self.y = y
        self.other = None if other is None else gradients.get(other)

    def measure(self) -> dict[str, float]:
        loss = (
            self.model._loss_of_student if isinstance(self.model, Distiller) else None
        )
        result = analysis.gradient_agreement(
            measured(self.model), self.x, self.y, self.other, loss
        )
        agreement = {}
        cosines, ratios = result.cosine.tolist(), result.norm_ratio.tolist()
        for name, cosine, ratio in zip(result.layers, cosines, ratios, strict=True):
            agreement[f"gradient_cosine/{name}"] = cosine
            agreement[f"gradient_norm_ratio/{name}"] = ratio
        return agreement
