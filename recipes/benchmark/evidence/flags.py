"""What a GPU's libraries may choose, set alike for all that is measured."""

import keras

from recipes.benchmark import cases
from recipes.benchmark.settings import Settings


def configured(settings, tf32):
    """The `Settings` of a dictionary, and whether float32 may be computed as TF32, set
    for what follows."""
    settings = Settings(**settings)
    fix(tf32)
    cases.configure(settings)
    return settings


def facts(settings):
    """What rows of `Settings` with one T tell of them, a dictionary."""
    (timesteps,) = settings.timesteps
    told = {
        "timesteps": timesteps,
        "precision": settings.precision,
        "data_format": settings.data_format,
    }
    return {"backend": keras.backend.backend(), **told}


def fix(tf32):
    """Lets cuDNN look for its fastest algorithms, and allows or forbids TF32 for
    convolutions and matrix products of float32.

    Args:
        tf32: Boolean.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        # Only PyTorch can be told; the others always do.
        torch.backends.cudnn.benchmark = True
    elif backend == "jax":
        import jax

        jax.config.update(
            "jax_default_matmul_precision", "tensorfloat32" if tf32 else "highest"
        )
    else:
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(tf32)
