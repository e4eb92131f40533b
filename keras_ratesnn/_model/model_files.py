"""Files of models and of weights: what they may be called, and weights that do not
fit."""

import contextlib

from keras_ratesnn._core import checks


def check_path(filepath, options):
    """Raises ValueError unless Keras can load a model from the file that it writes.

    Args:
        filepath: As in `keras.Model.save`.
        options: Dict, its keyword arguments.
    """
    path = checks.path("filepath", filepath)
    # Keras writes names with hf:// to the Hugging Face Hub, and folders if asked to;
    # for other names it would recommend HDF5.
    is_file = not path.startswith("hf://") and options.get("zipped") is not False
    if path.endswith((".h5", ".hdf5")) or (is_file and not path.endswith(".keras")):
        raise ValueError(
            "`filepath` must end in .keras: a SpikingModel could not be loaded "
            f"from an HDF5 file. Received: filepath={str(filepath)!r}. Save to "
            ".keras, or save only the weights with save_weights('....weights.h5')."
        )


@contextlib.contextmanager
def explained_misfits(filepath):
    """A context in which weights are loaded, whose errors say which layers do not
    fit."""
    try:
        yield
    except ValueError as error:
        _, said, layers = str(error).partition("could not be loaded:\n")
        if not said:
            raise
        # Keras looks for a layer that does not fit a second time, under another
        # name, and says that nothing is there.
        raise ValueError(
            "`filepath` must be a file of weights for layers of the same shapes. "
            f"Received: {str(filepath)!r}, which does not fit {layers}. "
            "skip_mismatch=True leaves such layers as they are, for example a new "
            "head; a file of model.network.save_weights is for "
            "model.network.load_weights."
        ) from error
