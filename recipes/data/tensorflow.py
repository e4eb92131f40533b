"""TensorFlow, which reads the data of the recipes with every backend."""

import keras


def tensorflow_for_data():
    """Imports TensorFlow for reading data. With another backend it must not allocate GPU memory.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError(f'The recipes read their data with tf.data ({error}): pip install -e ".[recipes]"') from error
    if keras.backend.backend() != "tensorflow":
        tf.config.set_visible_devices([], "GPU")
    return tf
