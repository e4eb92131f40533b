"""The accuracy after each time step, in the logs of an epoch."""

from typing import Any

from keras_ratesnn import analysis
from keras_ratesnn._core import checks
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn.callbacks._every import EveryEpochs
from keras_ratesnn.callbacks._measured import measured


class AccuracyOverTime(EveryEpochs):
    """Adds the accuracy after each time step to the logs: how early the model could stop, at this point of its training.

    The logs have `"accuracy_over_time/t1"` to `"accuracy_over_time/tT"`, see `keras_ratesnn.analysis.accuracy_over_time`. The
    model needs neither `return_sequences=True` nor a loss on each step's output; with these, `keras_ratesnn.metrics` has the
    same as a metric. Epochs without a measurement repeat the latest values. Training is not affected. For a `Distiller`, the
    student is measured.

    A measurement costs a forward pass over `x` in eager mode; `python -m recipes.benchmark.callbacks` measures the time. There
    is one more when `fit` starts, so that data that do not fit are found then.

    Example:

    >>> inputs = keras.Input((4,))
    >>> network = keras.Model(inputs, keras.layers.Dense(2)(keras_ratesnn.layers.LIF()(inputs)))
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=2)
    >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> x, y = np.ones((8, 4)), np.zeros(8)
    >>> history = model.fit(x, y, callbacks=[keras_ratesnn.callbacks.AccuracyOverTime(x, y)], verbose=0).history
    >>> sorted(history)
    ['accuracy_over_time/t1', 'accuracy_over_time/t2', 'loss']

    Args:
        x: Inputs, as for `model.predict`.
        y: Array, the labels: class indices, one-hot vectors, or 0 and 1 for each output, as for `"accuracy"` in Keras.
        every: Integer n >= 1: measures after the first epoch of `fit`, and after every epoch whose number, counted from 0, is a
            multiple of n. Defaults to `1`.
        timesteps: Integer T >= 1, the largest number of steps. Defaults to `None`, that of the model when `fit` starts.
        threshold: Float, the output above which a binary label is 1; 0 for logits. Defaults to `0.5`.

    Raises:
        TypeError: If `every` or `timesteps` is not an integer, or `threshold` not a number.
        ValueError: If `every` or `timesteps` is not >= 1; when `fit` starts, for the reasons of
            `keras_ratesnn.analysis.accuracy_over_time`.
    """

    def __init__(self, x: Structure, y: Any, every: int = 1, timesteps: int | None = None, threshold: float = 0.5) -> None:
        super().__init__(every)
        self.x = x
        self.y = y
        self.timesteps = None if timesteps is None else checks.positive_integer("timesteps", timesteps)
        self.threshold = checks.real("threshold", threshold)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        # A schedule may change the T of the model; all epochs have the same columns.
        self._largest = measured(self.model).timesteps if self.timesteps is None else self.timesteps
        super().on_train_begin(logs)

    def measure(self) -> dict[str, float]:
        model = measured(self.model)
        found = analysis.accuracy_over_time(model, self.x, self.y, self._largest, threshold=self.threshold, verbose=0)
        return {f"accuracy_over_time/t{t}": accuracy for t, accuracy in enumerate(found.accuracy.tolist(), 1)}
