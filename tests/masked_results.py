"""What training steps with masks in time give: shared by the tests of padded steps and
of masked rows."""

import keras
import numpy as np
from helpers import to_numpy, training_results
from keras import ops

from keras_ratesnn.gradients import SLTT, Rate

T = 4
LENGTHS = np.array([4, 2, 2, 1])
MASK = np.arange(T) < LENGTHS[:, None]
Y = np.array([0, 1, 2, 1])
# Each method and each step mode.
EACH_ONCE = [
    ("rate", "multi"),
    (Rate(windows=2), "single"),
    ("bptt", "multi"),
    ("sltt", "single"),
    ("ottt", "multi"),
]
METHODS = {
    "multi": ["rate", "bptt", "sltt"],
    "single": ["rate", SLTT(recompute=False), "ottt"],
}


class WithMask(keras.Model):
    """A model that is always called with a mask, for what trains models without one."""

    def __init__(self, model, mask=MASK):
        super().__init__()
        self.model, self.time_mask = model, mask
        self.built = True

    def call(self, inputs, training=None):
        mask = ops.convert_to_tensor(self.time_mask)
        return self.model(inputs, training=training, mask=mask)


def results(model, x, y=Y, mask=MASK, loss=None):
    """The loss, the gradients, the outputs and the moving statistics after a training
    step."""
    trained = model if mask is None else WithMask(model, mask)
    value, gradients, outputs = training_results(trained, x, y, loss)
    state = [to_numpy(variable) for variable in model.network.non_trainable_variables]
    return [value, *gradients.values(), outputs, *state]
