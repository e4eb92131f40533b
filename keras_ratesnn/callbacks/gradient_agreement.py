"""How close the gradient is to BPTT's, in the logs of an epoch."""

from typing import Any

from keras_ratesnn import analysis, gradients
from keras_ratesnn._core.annotations import Config, Structure
from keras_ratesnn.callbacks._every import EveryEpochs
from keras_ratesnn.callbacks._measured import measured
from keras_ratesnn.distillation import Distiller
from keras_ratesnn.gradients import GradientMethod


class GradientAgreement(EveryEpochs):
    """Adds to the logs how close the gradients of the model's method are to those of another method, on a fixed batch.

    For the kernel of each layer the logs have `"gradient_cosine/LAYER"` and `"gradient_norm_ratio/LAYER"`, see
    `keras_ratesnn.analysis.gradient_agreement`. Epochs without a measurement repeat the latest values, so that every epoch has
    the same columns. Training is not affected: weights, moving statistics and seeds do not change. For a
    `keras_ratesnn.distillation.Distiller`, the student is measured, with its own loss and without those of the teacher.

    A measurement costs one training step with each method on the batch, in eager mode. This takes as long as about 10 to 40
    compiled steps on TensorFlow and JAX, and 3 on PyTorch. `python -m recipes.benchmark.callbacks` measures the time.
    There is one more when `fit` starts, so that data that do not fit are found then.

    Example:

    >>> inputs = keras.Input((4,))
    >>> network = keras.Model(inputs, keras.layers.Dense(2, name="outputs")(keras_ratesnn.layers.LIF()(inputs)))
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
        every: Integer n >= 1: measures after the first epoch of `fit`, and after every epoch whose number, counted from 0, is a
            multiple of n. Defaults to `1`.
        other: Name or `GradientMethod`, the method to compare with. Defaults to `"bptt"`.

    Raises:
        TypeError: If `every` is not an integer, or `other` is not a method.
        ValueError: If `every` is not >= 1, or the method is unknown; when `fit` starts, for the reasons of
            `keras_ratesnn.analysis.gradient_agreement`.
    """

    def __init__(self, x: Structure, y: Any, every: int = 1, other: str | GradientMethod | Config = "bptt") -> None:
        super().__init__(every)
        self.x = x
        self.y = y
        self.other = gradients.get(other)

    def measure(self) -> dict[str, float]:
        loss = self.model._loss_of_student if isinstance(self.model, Distiller) else None
        found = analysis.gradient_agreement(measured(self.model), self.x, self.y, self.other, loss)
        agreement = {}
        for name, cosine, ratio in zip(found.layers, found.cosine.tolist(), found.norm_ratio.tolist(), strict=True):
            agreement[f"gradient_cosine/{name}"] = cosine
            agreement[f"gradient_norm_ratio/{name}"] = ratio
        return agreement
