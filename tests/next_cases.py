"""Reference cases of networks of newer neurons and layers: each a run of the authors'
program by BPTT."""

import json
import pathlib

import keras
import numpy as np
from helpers import compiled, training_results
from keras import layers

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
        _, gradients, outputs = training_results(model, self.x, self.y)
        np.testing.assert_allclose(outputs, self.arrays["logits"], rtol=1e-3, atol=1e-5)
        for path, gradient in gradients.items():
            expected = self.arrays[f"grad/{names[path]}"].reshape(gradient.shape)
            error = np.linalg.norm(gradient - expected)
            assert error < 1e-3 * max(np.linalg.norm(expected), 1e-6), path
        compiled(model, keras.optimizers.SGD(self.settings["lr"]))
        losses = [
            model.train_on_batch(self.x, self.y)
            for _ in range(self.settings["sgd_steps"])
        ]
        np.testing.assert_allclose(losses, self.arrays["losses"], rtol=1e-3)
