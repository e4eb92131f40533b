"""What devices send to each other in a training step on JAX, from its compiled program."""

import math
import re

import jax
import keras

_COLLECTIVE = re.compile(r"= (.*?) ((?:all|collective)-[a-z-]+?|reduce-scatter)(?:-start)?\(")
_ARRAY = re.compile(r"([a-z]+)(\d+)\[([\d,]*)\]")


def in_step(model, images, labels):
    """The bytes of the results of all collective operations in a training step, by their names.

    Args:
        model: A compiled Keras model, whose optimizer is built, on JAX in a `keras.distribution`.
        images: Array, the images of the global batch.
        labels: Array.
    """
    variables = model.trainable_variables, model.non_trainable_variables, model.optimizer.variables, model.metrics_variables
    state = [[variable.value for variable in some] for some in variables]
    layout = keras.distribution.distribution().get_data_layout
    batch = [jax.device_put(array, layout(array.shape).backend_layout) for array in (images, labels)]
    program = jax.jit(model.train_step).lower(state, (*batch, None)).compile().as_text()
    found: dict[str, int] = {}
    for results, name in _COLLECTIVE.findall(program):
        found[name] = found.get(name, 0) + sum(_bytes(*array) for array in _ARRAY.findall(results))
    return found


def _bytes(kind, bits, shape):
    return math.prod(map(int, filter(None, shape.split(",")))) * int(bits) // 8
