"""What Keras has no portable function for, once per backend: `jax.py`, `tensorflow.py` and `torch.py` define the same names.

* `graft(value, onto, slope)`: `value`, with a derivative of our choice.
* `no_gradient()`: a context in which nothing is recorded for a backward pass.
* `records_gradient()`: whether what is computed now may be differentiated later.
* `derivative_only()`: a context for results whose derivative is wanted and whose value is not.
* `together(tensors)`: the tensors, each computed before any is used.
* `layout_kept()`: a context in which Keras' layers do not copy `channels_last` data into another order.
* `unrolled_steps()`: up to this T the time loop of one layer is better unrolled than a loop of the compiler.
"""

import keras

_name = keras.backend.backend()

if _name == "jax":
    from keras_ratesnn.backend.jax import (
        derivative_only,
        graft,
        layout_kept,
        no_gradient,
        records_gradient,
        together,
        unrolled_steps,
    )
elif _name == "tensorflow":
    from keras_ratesnn.backend.tensorflow import (
        derivative_only,
        graft,
        layout_kept,
        no_gradient,
        records_gradient,
        together,
        unrolled_steps,
    )
elif _name == "torch":
    from keras_ratesnn.backend.torch import (
        derivative_only,
        graft,
        layout_kept,
        no_gradient,
        records_gradient,
        together,
        unrolled_steps,
    )
else:
    raise ImportError(
        f"keras_ratesnn runs on the Keras backends tensorflow, jax and torch. Received: KERAS_BACKEND={_name!r}. "
        "Set the environment variable KERAS_BACKEND to one of the three before Keras is imported."
    )

__all__ = ["derivative_only", "graft", "layout_kept", "no_gradient", "records_gradient", "together", "unrolled_steps"]
