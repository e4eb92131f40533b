"""How Keras builds and compiles the functions of `fit`, `evaluate` and `predict`."""

import contextlib

import keras
from keras import ops

from keras_ratesnn._core.keras_internals.imported import compute_output_spec
from keras_ratesnn._core.keras_internals.losses import build_loss, symbolic
from keras_ratesnn._core.keras_internals.trees import first_batch


def build_metrics(model, data):
    """Makes the variables of metrics, and of losses of several outputs, before
    TensorFlow traces a step.

    Outside of `tf.distribute` Keras makes them in the trace, and TensorFlow traces
    again what has made variables: steps are long.

    Args:
        model: A Keras model.
        data: The argument of its train or test function.

    Returns:
        What takes the place of `data`.
    """
    if (
        keras.backend.backend() != "tensorflow"
        or model._distribute_strategy is not None
        or all(
            part is None or part.built
            for part in (model._compile_loss, model._compile_metrics)
        )
    ):
        return data
    batch, data = first_batch(data)
    # What does not fit is an error of the step, and what is not known of a data set is
    # known there.
    with contextlib.suppress(Exception):
        x, y, weights = keras.utils.unpack_x_y_sample_weight(symbolic(batch))
        outputs = model.compute_output_spec(x)
        if len(keras.tree.flatten(outputs)) > 1:
            build_loss(model, x, y, outputs)
        if model._compile_metrics is not None and not model._compile_metrics.built:
            compute_output_spec(
                model.compute_metrics, x, y, outputs, sample_weight=weights
            )
    return data


class StandIn:
    """A stand-in for a model in Keras' `make_train_function` etc.: it reads from the
    model and stores the function.

    Keras keeps one function for a purpose, in the model itself, which may be in use by
    `fit` or by other threads.

    Args:
        model: A Keras model.
        shardings: Its `state_shardings`, which cannot be read while the model trains on
            JAX.
    """

    def __init__(self, model, shardings):
        self._model = model
        self._get_state_sharding_spec = lambda: shardings

    def __getattr__(self, name):
        return getattr(self._model, name)

    # JAX would treat `model.train_step` as the same function each time and not retrace
    # it. These belong to this object.
    def train_step(self, *args):
        return self._for_several_workers(self._model.train_step(*args))

    def test_step(self, *args):
        return self._for_several_workers(self._model.test_step(*args))

    def predict_step(self, *args):
        return self._model.predict_step(*args)

    def _for_several_workers(self, logs):
        """Logs with an axis, over which Keras takes a mean where several workers of
        `tf.distribute` train together."""
        strategy = getattr(self._model, "_distribute_strategy", None)
        if strategy is None or strategy.cluster_resolver is None:
            return logs
        return keras.tree.map_structure(lambda value: ops.expand_dims(value, 0), logs)


def make_function(stand_in, purpose):
    """Lets Keras make the function for `fit`, `evaluate` or `predict`: `purpose` is
    `"train"`, `"test"` or `"predict"`."""
    # A custom step may have an optimizer of its own.
    if (
        purpose == "train"
        and stand_in.optimizer is not None
        and not stand_in.optimizer.built
    ):
        # Like the variables of metrics, see `build_metrics`.
        stand_in.optimizer.build(stand_in.trainable_variables)
    getattr(keras.Model, f"make_{purpose}_function")(stand_in, force=True)
    return getattr(stand_in, f"{purpose}_function")


@contextlib.contextmanager
def plain_build_errors():
    """A context that raises the original error when Keras fails to run a model to build
    its metrics.

    Keras replaces any error of a layer by "Unable to automatically build the model",
    which does not say what is wrong.
    """
    try:
        yield
    except RuntimeError as error:
        if error.__context__ is not None and str(error).startswith(
            "Unable to automatically build the model."
        ):
            raise error.__context__ from None
        raise
