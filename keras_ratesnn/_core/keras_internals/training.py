"""How Keras builds and compiles the functions of `fit`, `evaluate` and `predict`."""

import contextlib

import keras
from keras import ops


class TrainsInStrategies:
    """A mixin for models that are trained in a `tf.distribute` strategy, whose replicas have unequal parts of the first batch.

    Keras would add these parts to build a model (docs/upstream.md, unequal parts of a batch).
    """

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        strategy = getattr(self, "_distribute_strategy", None)  # only TensorFlow's models have one, since Keras 3.16
        if iterator is not None and strategy is not None:
            for _, _, batches in iterator:
                data_batch = keras.tree.map_structure(lambda part: strategy.experimental_local_results(part)[0], next(batches))
                break
            iterator = None
        super()._maybe_symbolic_build(iterator, data_batch)  # type: ignore[misc]


class StandIn:
    """A stand-in for a model in Keras' `make_train_function` etc.: it reads from the model and stores the function.

    Keras keeps one function for a purpose, in the model itself, which may be in use by `fit` or by other threads.

    Args:
        model: A Keras model.
        shardings: Its `state_shardings`, which cannot be read while the model trains on JAX.
    """

    def __init__(self, model, shardings):
        self._model = model
        self._get_state_sharding_spec = lambda: shardings

    def __getattr__(self, name):
        return getattr(self._model, name)

    # JAX would treat `model.train_step` as the same function each time and not retrace it. These belong to this object.
    def train_step(self, *args):
        return self._for_several_workers(self._model.train_step(*args))

    def test_step(self, *args):
        return self._for_several_workers(self._model.test_step(*args))

    def predict_step(self, *args):
        return self._model.predict_step(*args)

    def _for_several_workers(self, logs):
        """Logs with an axis, over which Keras takes a mean where several workers of `tf.distribute` train together."""
        strategy = getattr(self._model, "_distribute_strategy", None)
        if strategy is None or strategy.cluster_resolver is None:
            return logs
        return keras.tree.map_structure(lambda value: ops.expand_dims(value, 0), logs)


def make_function(stand_in, purpose):
    """Lets Keras make the function for `fit`, `evaluate` or `predict`: `purpose` is `"train"`, `"test"` or `"predict"`."""
    getattr(keras.Model, f"make_{purpose}_function")(stand_in, force=True)
    return getattr(stand_in, f"{purpose}_function")


@contextlib.contextmanager
def plain_build_errors():
    """A context that raises the original error when Keras fails to run a model to build its metrics.

    Keras replaces any error of a layer by "Unable to automatically build the model", which does not say what is wrong.
    """
    try:
        yield
    except RuntimeError as error:
        if error.__context__ is not None and str(error).startswith("Unable to automatically build the model."):
            raise error.__context__ from None
        raise
