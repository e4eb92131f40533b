"""Reference cases of networks of newer neurons and layers: each a run of the authors'
program by BPTT."""

import json
import pathlib

import keras
import numpy as np
from helpers import to_numpy
from keras import layers, ops

import keras_ratesnn as rsnn

FOLDER = pathlib.Path(__file__).parent / "reference" / "next"


class NextCase:
    """A network of dense layers a, b and c, and of layers before or after them.

    Args:
        name: String, the name of the file without extension.
    """

    def __init__(self, name):
        self.arrays = dict(np.load(FOLDER / f"{name}.npz"))
        self.settings = json.loads(str(self.arrays.pop("meta")))
        self.x, self.y = self.arrays["x"], self.arrays["y"].astype("int32")

    def model(self, hidden, gradient="bptt", step_mode="multi"):
        """A SpikingModel of the case.

        Args:
            hidden: Function `(x, synapse, name) -> x`: a dense layer, named "a" or "b",
                and what is around it.
            gradient: See `SpikingModel`.
            step_mode: See `SpikingModel`.
        """
        x = inputs = keras.Input((12,))
        for name in ("a", "b"):
            bias = f"weight/{name}.bias" in self.arrays
            x = hidden(x, layers.Dense(16, use_bias=bias, name=name), name)
        network = keras.Model(inputs, layers.Dense(5, name="c")(x))
        model = rsnn.SpikingModel(
            network, self.settings["timesteps"], gradient, step_mode
        )
        for layer in "abc":
            network.get_layer(layer).set_weights(
                [
                    self.arrays[f"weight/{layer}.{kind}"]
                    for kind in ("weight", "bias")
                    if f"weight/{layer}.{kind}" in self.arrays
                ]
            )
        return model

    def assert_agrees(self, model, names):
        """Logits, gradients and the losses of a few steps of training agree.

        Args:
            model: What `model` returned, with all of its weights.
            names: Dict from the paths of other variables than those of a, b and c to
                names of the authors' program.
        """
        for layer in "abc":
            names = {
                **names,
                f"{layer}/kernel": f"{layer}.weight",
                f"{layer}/bias": f"{layer}.bias",
            }
        logits, optimizer = self.arrays["logits"], Remembers(self.settings["lr"])

        def logits_error(y, outputs):
            return ops.max(
                ops.abs(ops.subtract(outputs, logits))
                / ops.convert_to_tensor(1e-5 + 1e-3 * np.abs(logits))
            )

        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, metrics=[logits_error])
        losses = []
        for step in range(self.settings["sgd_steps"]):
            value, error = model.train_on_batch(self.x, self.y)
            losses.append(value)
            if step == 0:
                assert error <= 1.0
                for variable, gradient in zip(
                    model.trainable_variables, optimizer.gradients, strict=True
                ):
                    expected, path = (
                        self.arrays[f"grad/{names[variable.path]}"],
                        variable.path,
                    )
                    error = np.linalg.norm(
                        to_numpy(gradient) - expected.reshape(gradient.shape)
                    )
                    assert error < 1e-3 * max(np.linalg.norm(expected), 1e-6), (
                        path,
                        error,
                    )
        np.testing.assert_allclose(losses, self.arrays["losses"], rtol=1e-3)


class Remembers(keras.optimizers.SGD):
    """Keeps the gradients of the last step."""

    def build(self, variables):
        super().build(variables)
        self.gradients = self.add_optimizer_variables(variables, "gradient")

    def update_step(self, gradient, variable, learning_rate):
        self.assign(self.gradients[self._get_variable_index(variable)], gradient)
        super().update_step(gradient, variable, learning_rate)
