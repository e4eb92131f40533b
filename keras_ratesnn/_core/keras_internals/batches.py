"""Batches that the devices of a distribution cannot share equally."""

import contextlib
import contextvars

import keras

from keras_ratesnn._core.contexts import setting
from keras_ratesnn._core.keras_internals.replacements import Replacements
from keras_ratesnn._core.keras_internals.trees import first_tensor

_copying = contextvars.ContextVar("keras_ratesnn_copying", default=False)


@contextlib.contextmanager
def whole_batches(model):
    """A context in which the distribution of a model takes batches that its devices
    cannot share equally.

    On JAX such a batch is given whole to each of them. Keras' JAX trainer divides every
    batch, and would raise an error in the middle of training, at the last, smaller one
    (docs/upstream.md, the last batch). On TensorFlow Keras would add the unequal parts
    of the first batch, to build metrics (docs/upstream.md, unequal parts of a batch).
    """
    with setting(_copying, True), _mended_trainer(model):
        yield


def _mended_trainer(model):
    backend = keras.backend.backend()
    if backend == "jax" and keras.distribution.distribution() is not None:
        return _jax_trainer
    # Only TensorFlow's models have one.
    if getattr(model, "_distribute_strategy", None) is not None:
        return _tensorflow_trainer
    return contextlib.nullcontext()


@Replacements
def _tensorflow_trainer():
    from keras.src.backend.tensorflow.trainer import TensorFlowTrainer

    build = TensorFlowTrainer._maybe_symbolic_build

    def build_with_part(self, iterator=None, data_batch=None):
        strategy = self._distribute_strategy
        if strategy is None or iterator is None:
            return build(self, iterator, data_batch)
        for _, _, batches in iterator:
            data_batch = keras.tree.map_structure(
                lambda parts: strategy.experimental_local_results(parts)[0],
                next(batches),
            )
            break
        return build(self, None, data_batch)

    return [(TensorFlowTrainer, "_maybe_symbolic_build", build_with_part)]


@Replacements
def _jax_trainer():
    import jax
    from keras.src.backend.jax import trainer

    distribute = trainer._distribute_data

    def distribute_or_copy(data, layouts=None, **later):
        distribution = keras.distribution.distribution()
        if not _copying.get() or distribution is None:
            return distribute(data, layouts, **later)
        mesh = distribution.device_mesh
        devices = mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)]
        # Keras 3.16 stacks the batches of an execution.
        batch_axis = int(later.get("is_super_batch", False))
        rows, processes = first_tensor(data).shape[batch_axis], jax.process_count()
        if rows * processes % devices == 0:
            return distribute(data, layouts, **later)
        if processes > 1:
            raise ValueError(
                f"`batch_size` must be a multiple of the number of devices, {devices}, "
                "where several processes train together. Received: a batch of "
                f"{rows * processes}. Drop the last batch if it is smaller."
            )

        def whole(leaf):
            return (
                None
                if leaf is None
                else keras.distribution.TensorLayout([None] * len(leaf.shape), mesh)
            )

        return distribute(data, keras.tree.map_structure(whole, data))

    return [(trainer, "_distribute_data", distribute_or_copy)]
