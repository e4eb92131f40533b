"""The networks of the reference cases, with weights and gradients under the names of the authors' program."""

import json
import pathlib
import re

import keras
import numpy as np
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.models import _residual, preact_resnet, resnet, sew_resnet
from keras_ratesnn.models import vgg as vgg_models

FOLDER = pathlib.Path(__file__).parent / "reference"
CASES = sorted(path.stem for path in FOLDER.glob("*.npz"))

TOLERANCE = 1e-3
"""The largest relative error."""

NEGLIGIBLE = 1e-5
"""A gradient that is smaller than this fraction of the largest is zero but for rounding."""

LONG_STEP = 2.0**17
"""A learning rate with which a gradient can be read from the weights after a step, where its rounding is small."""


class Case:
    """One run of the authors' program: the inputs `x`, `y` and weights, and the results.

    Args:
        name: String, the name of the file without extension.
    """

    def __init__(self, name):
        self.arrays = dict(np.load(FOLDER / f"{name}.npz"))
        self.settings = json.loads(str(self.arrays.pop("meta")))
        self.x, self.y = self.arrays["x"], self.arrays["y"].astype("int32")

    def model(self, **overrides):
        """A SpikingModel of the case's network, weights, neurons, gradient and step mode."""
        settings = self.settings
        # Online methods have one order only.
        gradient, _, order = settings["method"].partition("_")
        if gradient == "rate" and order == "s":
            gradient = rsnn.gradients.Rate(last_step_statistics=True)
        build = vgg_ws if settings.get("weight_standardised") else NETWORKS[settings["net"]]
        network = build(settings["width"], self.neuron)
        arguments = {
            "timesteps": settings["timesteps"],
            "gradient": gradient,
            "step_mode": "multi" if order == "m" else "single",
            "return_sequences": settings.get("loss") == "each",
            **overrides,
        }
        model = rsnn.SpikingModel(network, **arguments)
        for variable in model.trainable_variables:
            variable.assign(self.arrays[f"weight/{reference_name(variable.path)}"])
        return model

    def neuron(self):
        settings = self.settings
        return rsnn.layers.LIF(
            decay=settings["decay"],
            threshold=settings["threshold"],
            reset=settings["reset"],
            detach_reset=settings["detach_reset"],
            surrogate=rsnn.surrogates.Sigmoid(settings.get("alpha", 4.0)),
        )

    def loss(self, y, outputs):
        """The cross-entropy of the time mean of the logits, or the mean of that of each step."""
        cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        if self.settings.get("loss") != "each":
            return cross_entropy(y, outputs)
        return cross_entropy(ops.repeat(y, self.settings["timesteps"]), ops.reshape(outputs, (-1, outputs.shape[-1])))

    def expected(self, kind):
        """The arrays of a kind ("grad", "buffer") by the authors' names."""
        return {key.split("/", 1)[1]: value for key, value in self.arrays.items() if key.startswith(f"{kind}/")}

    def assert_training_agrees(self, jit_compile):
        """Trains a model as the authors' program was trained; compares logits, gradients, losses and moving statistics."""
        model, logits = self.model(), self.arrays["logits"]

        def logits_error(y, outputs):
            outputs = ops.mean(outputs, axis=1) if len(outputs.shape) == 3 else outputs
            return ops.norm(outputs - ops.convert_to_tensor(logits)) / float(np.linalg.norm(logits))

        model.compile(keras.optimizers.SGD(LONG_STEP), self.loss, metrics=[logits_error], jit_compile=jit_compile)
        before = [variable.numpy() for variable in model.trainable_variables]
        loss, error = model.train_on_batch(self.x, self.y)
        assert error < TOLERANCE
        gradients = {}
        model.optimizer.learning_rate = self.settings["lr"]
        for variable, value in zip(model.trainable_variables, before, strict=True):
            gradients[variable.path] = (value - variable.numpy()) / LONG_STEP
            variable.assign(value - self.settings["lr"] * gradients[variable.path])
        self.assert_gradients_agree(gradients)
        losses = [loss, *(model.train_on_batch(self.x, self.y)[0] for _ in range(1, self.settings["sgd_steps"]))]
        np.testing.assert_allclose(losses, self.arrays["losses"], rtol=TOLERANCE)
        moving = {reference_name(variable.path): variable.numpy() for variable in model.non_trainable_variables}
        for name, mean in self.expected("buffer").items():
            if name.endswith("running_mean"):
                assert np.linalg.norm(moving[name] - mean) < TOLERANCE * np.linalg.norm(mean), name

    def assert_gradients_agree(self, gradients):
        """Compares gradients by the paths of their variables."""
        expected = self.expected("grad")
        assert {reference_name(path) for path in gradients} == expected.keys()
        negligible = NEGLIGIBLE * max(map(np.linalg.norm, expected.values()))
        for path, gradient in gradients.items():
            wanted = expected[reference_name(path)]
            size = np.linalg.norm(wanted)
            assert np.linalg.norm(gradient - wanted) < (TOLERANCE * size if size >= negligible else negligible), path


# Layers are named NETWORK_LAYER; what each network's layers are called in the authors' program. Patterns in order.
THEIR_NAMES = {
    "mlp": [],
    "vgg": [("block1_conv1", "f.0"), ("block1_bn1", "f.1"), ("block2_conv1", "f.4"), ("block2_bn1", "f.5")],
    "res": [("stem_conv", "conv0.0"), ("stem_bn", "conv0.1"), ("shortcut_conv", "shortcut.0"), ("shortcut_bn", "shortcut.1")],
    "sew": [
        ("stem_conv", "conv0.0"),
        ("stem_bn", "conv0.1"),
        ("shortcut_conv", "downsample.0"),
        ("shortcut_bn", "downsample.1"),
        (r"_conv(\d)", r"_convNeuron\1.0"),
        (r"_bn(\d)", r"_convNeuron\1.1"),
    ],
    "pre": [("stem_conv", "conv1"), ("stem_bn", "bn1"), ("shortcut_conv", "downsample.0"), ("shortcut_bn", "downsample.1")],
}
THEIR_KINDS = {
    "kernel": "weight",
    "gain": "gain",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def reference_name(path):
    """The authors' name of a Keras variable with this path."""
    layer, kind = path.split("/")[-2:]
    network, layer = layer.split("_", 1)
    for pattern, theirs in THEIR_NAMES[network]:
        layer = re.sub(f"{pattern}$", theirs, layer)
    return f"{layer.replace('_', '.')}.{THEIR_KINDS[kind]}"


def _classified(inputs, x, name):
    return keras.Model(inputs, layers.Dense(5, name=f"{name}_c")(x))


def _two_blocks(inputs, x, width, neuron, block, name):
    """Blocks b1, and b2 that halves the image, and the mean over it."""
    x = block(x, width, 1, neuron, f"{name}_b1")
    x = block(x, 2 * width, 2, neuron, f"{name}_b2")
    return _classified(inputs, layers.GlobalAveragePooling2D()(x), name)


def mlp(width, neuron):
    inputs = keras.Input((12,))
    x = neuron()(layers.Dense(16, name="mlp_a")(inputs))
    x = neuron()(layers.Dense(16, name="mlp_b")(x))
    return _classified(inputs, x, "mlp")


def vgg(width, neuron, normalization="batch"):
    x = inputs = keras.Input((8, 8, 3))
    for name, filters in (("vgg_block1", width), ("vgg_block2", 2 * width)):
        x = vgg_models.pool(vgg_models.block(x, [filters], neuron, name, normalization), name)
    return _classified(inputs, layers.Flatten()(x), "vgg")


def vgg_ws(width, neuron):
    """Standardised kernels, and spikes scaled by 2.74 before they are pooled."""
    return vgg(width, neuron, "weight")


def res(width, neuron):
    inputs = keras.Input((8, 8, 3))
    x = _residual.stem_block(inputs, width, "cifar", neuron, **resnet.STYLE, name="res_stem")
    return _two_blocks(inputs, x, width, neuron, resnet.basic_block, "res")


def sew(width, neuron):
    inputs = keras.Input((8, 8, 3))
    x = _residual.stem_block(inputs, width, "cifar", neuron, **sew_resnet.STYLE, name="sew_stem")
    return _two_blocks(inputs, x, width, neuron, sew_resnet.basic_block, "sew")


def pre(width, neuron):
    inputs = keras.Input((8, 8, 3))
    x = _residual.stem_block(inputs, width, "cifar", None, **preact_resnet.STYLE, name="pre_stem")
    return _two_blocks(inputs, x, width, neuron, preact_resnet.basic_block, "pre")


NETWORKS = {"mlp": mlp, "vgg": vgg, "res": res, "sew": sew, "pre": pre}
