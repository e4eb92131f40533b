"""Batches that the devices of a distribution cannot share equally."""

import contextlib
import contextvars

import keras

from keras_ratesnn._core.contexts import setting
from keras_ratesnn._core.keras_internals.replacements import Replacements
from keras_ratesnn._core.keras_internals.trees import first_tensor

_copying = contextvars.ContextVar("keras_ratesnn_copying", default=False)


@contextlib.contextmanager
def whole_batches():
    """On JAX, a context in which a batch that devices cannot share equally is given
    whole to each of them.

    Keras' JAX trainer divides every batch, and would raise an error in the middle of
    training, at the last, smaller one (docs/upstream.md, the last batch).
    """
    spread = (
        keras.backend.backend() == "jax"
        and keras.distribution.distribution() is not None
    )
    with (
        setting(_copying, True),
        _mended_trainer if spread else contextlib.nullcontext(),
    ):
        yield


@Replacements
def _mended_trainer():
    import jax
    from keras.src.backend.jax import trainer

    distribute = trainer._distribute_data

    def distribute_or_copy(data, layouts=None):
        distribution = keras.distribution.distribution()
        if not _copying.get() or distribution is None:
            return distribute(data, layouts)
        mesh = distribution.device_mesh
        devices = mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)]
        rows, processes = first_tensor(data).shape[0], jax.process_count()
        if rows * processes % devices == 0:
            return distribute(data, layouts)
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
