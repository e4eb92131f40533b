"""Reference cases of networks of newer neurons and layers: each a run of the authors'
program by BPTT."""

import keras
import numpy as np
from helpers import compiled, training_results
from keras import layers
from reference_networks import FOLDER, THEIR_KINDS, Case

import keras_ratesnn as rsnn


class NextCase(Case):
    """A network whose layers have the names of the authors' program."""

    folder = FOLDER / "next"

    def __init__(self, name):
        super().__init__(name)
        self.names = {}

    def name_of(self, path):
        layer, kind = path.split("/")[-2:]
        return self.names.get(path) or f"{layer}.{THEIR_KINDS.get(kind)}"

    def model(self, network, gradient="bptt"):
        """A SpikingModel of a network, with the weights of the layers that have names
        of theirs."""
        model = rsnn.SpikingModel(network, self.settings["timesteps"], gradient)
        for variable in model.trainable_variables:
            theirs = self.name_of(variable.path)
            if f"weight/{theirs}" in self.arrays:
                self.load(variable, theirs)
        return model

    def dense_model(self, hidden):
        """That of dense layers a, b and c, and of layers before or after them.

        Args:
            hidden: Function `(x, synapse, name) -> x`: a dense layer, named "a" or "b",
                and what is around it.
        """
        x = inputs = keras.Input((12,))
        for name in ("a", "b"):
            bias = f"weight/{name}.bias" in self.arrays
            x = hidden(x, layers.Dense(16, use_bias=bias, name=name), name)
        return self.model(keras.Model(inputs, layers.Dense(5, name="c")(x)))

    def load(self, variable, theirs):
        """Gives a variable the array of theirs with this name."""
        self.names[variable.path] = theirs
        variable.assign(self.arrays[f"weight/{theirs}"].reshape(variable.shape))

    def assert_agrees(self, model):
        """Logits, gradients and the losses of a few steps of training agree, of a model
        with all weights of theirs."""
        _, gradients, outputs = training_results(model, self.x, self.y)
        np.testing.assert_allclose(outputs, self.arrays["logits"], rtol=1e-3, atol=1e-5)
        self.assert_gradients_agree(gradients)
        compiled(model, keras.optimizers.SGD(self.settings["lr"]))
        losses = [
            model.train_on_batch(self.x, self.y)
            for _ in range(self.settings["sgd_steps"])
        ]
        np.testing.assert_allclose(losses, self.arrays["losses"], rtol=1e-3)
