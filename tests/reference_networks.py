"""The networks of the reference cases, with weights and gradients under the names of
the authors' program."""

import json
import pathlib
import re

import keras
import numpy as np
from core.transformer_parts import Design, spike_block, tokens
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.models import (
    espikeformer,
    maxformer,
    preact_resnet,
    qkformer,
    resnet,
    sew_resnet,
)
from keras_ratesnn.models import vgg as vgg_models
from keras_ratesnn.models.attention import (
    spikformer_attention_neuron,
    spikformer_neuron,
    spiking_self_attention,
)

FOLDER = pathlib.Path(__file__).parent / "reference"
CASES = sorted(path.stem for path in FOLDER.glob("*.npz"))

TOLERANCE = 1e-3
"""The largest relative error."""

NEGLIGIBLE = 1e-5
"""A gradient that is smaller than this fraction of the largest is zero but for
rounding."""

LONG_STEP = 2.0**17
"""A learning rate with which a gradient can be read from the weights after a step,
where its rounding is small."""


class Case:
    """One run of the authors' program: the inputs `x`, `y` and weights, and the
    results.

    Args:
        name: String, the name of the file without extension.
    """

    folder = FOLDER

    def __init__(self, name):
        self.arrays = dict(np.load(self.folder / f"{name}.npz"))
        self.settings = json.loads(str(self.arrays.pop("meta")))
        self.x, self.y = self.arrays["x"], self.arrays["y"].astype("int32")

    def model(self, **overrides):
        """A SpikingModel of the case's network, weights, neurons, gradient and step
        mode."""
        settings = self.settings
        # Online methods have one order only.
        gradient, _, order = settings["method"].partition("_")
        if gradient == "rate" and order == "s":
            gradient = rsnn.gradients.Rate(last_step_statistics=True)
        if settings["net"] in TRANSFORMERS:
            network = TRANSFORMERS[settings["net"]](
                settings, self.x.shape[2 if settings["temporal_input"] else 1 :]
            )
        else:
            build = (
                vgg_ws
                if settings.get("weight_standardised")
                else NETWORKS[settings["net"]]
            )
            network = build(settings["width"], self.neuron)
        arguments = {
            "timesteps": settings["timesteps"],
            "gradient": gradient,
            "step_mode": "multi"
            if order == "m" or settings["method"] == "bptt"
            else "single",
            "return_sequences": settings.get("loss") == "each",
            **overrides,
        }
        model = rsnn.SpikingModel(network, **arguments)
        for variable in model.trainable_variables:
            # A 1x1 convolution of theirs may be a dense layer of ours.
            variable.assign(
                self.arrays[f"weight/{self.name_of(variable.path)}"].reshape(
                    variable.shape
                )
            )
        return model

    @staticmethod
    def name_of(path):
        """The authors' name of the Keras variable with this path."""
        return reference_name(path)

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
        """The cross-entropy of the time mean of the logits, or the mean of that of each
        step."""
        cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        if self.settings.get("loss") != "each":
            return cross_entropy(y, outputs)
        return cross_entropy(
            ops.repeat(y, self.settings["timesteps"]),
            ops.reshape(outputs, (-1, outputs.shape[-1])),
        )

    def expected(self, kind):
        """The arrays of a kind ("grad", "buffer") by the authors' names."""
        return {
            key.split("/", 1)[1]: value
            for key, value in self.arrays.items()
            if key.startswith(f"{kind}/")
        }

    def assert_training_agrees(self, jit_compile, **overrides):
        """Trains a model as the authors' program was trained; compares logits,
        gradients, losses and moving statistics."""
        model, logits = self.model(**overrides), self.arrays["logits"]

        def logits_error(y, outputs):
            outputs = ops.mean(outputs, axis=1) if len(outputs.shape) == 3 else outputs
            return ops.norm(outputs - ops.convert_to_tensor(logits)) / float(
                np.linalg.norm(logits)
            )

        model.compile(
            keras.optimizers.SGD(LONG_STEP),
            self.loss,
            metrics=[logits_error],
            jit_compile=jit_compile,
        )
        before = [variable.numpy() for variable in model.trainable_variables]
        loss, error = model.train_on_batch(self.x, self.y)
        assert error < TOLERANCE
        gradients = {}
        model.optimizer.learning_rate = self.settings["lr"]
        for variable, value in zip(model.trainable_variables, before, strict=True):
            gradients[variable.path] = (value - variable.numpy()) / LONG_STEP
            variable.assign(value - self.settings["lr"] * gradients[variable.path])
        self.assert_gradients_agree(gradients)
        losses = [
            loss,
            *(
                model.train_on_batch(self.x, self.y)[0]
                for _ in range(1, self.settings["sgd_steps"])
            ),
        ]
        np.testing.assert_allclose(losses, self.arrays["losses"], rtol=TOLERANCE)
        moving = {
            self.name_of(variable.path): variable.numpy()
            for variable in model.non_trainable_variables
        }
        for name, mean in self.expected("buffer").items():
            error = np.linalg.norm(moving[name] - mean)
            assert error < TOLERANCE * np.linalg.norm(mean), name

    def assert_gradients_agree(self, gradients):
        """Compares gradients by the paths of their variables."""
        expected = self.expected("grad")
        assert {self.name_of(path) for path in gradients} == expected.keys()
        negligible = NEGLIGIBLE * max(map(np.linalg.norm, expected.values()))
        for path, gradient in gradients.items():
            wanted = expected[self.name_of(path)].reshape(gradient.shape)
            size = np.linalg.norm(wanted)
            assert np.linalg.norm(gradient - wanted) < (
                TOLERANCE * size if size >= negligible else negligible
            ), path


def _table(text):
    """The rows of a table of our names and those of the authors."""
    return [row.split() for row in text.strip().splitlines()]


def _attention(ours, theirs, kind):
    """The patterns of a layer of attention, whose dense layers are called `kind`."""
    parts = _table("query q\nkey k\nvalue v\noutput proj")
    return [
        (f"{ours}_attention_{part}{ending}", f"{theirs}.{name}-{layer}")
        for part, name in parts
        for ending, layer in (("", kind), ("_bn", "bn"))
    ]


def _mlp(ours, theirs, name, kind):
    return [
        (rf"{ours}_mlp(\d)", rf"{theirs}.mlp.{name}\1-{kind}"),
        (rf"{ours}_mlp(\d)_bn", rf"{theirs}.mlp.{name}\1-bn"),
    ]


# Layers are named NETWORK_LAYER; what each network's layers are called in the authors'
# program. Patterns in order. Afterwards an underscore becomes a dot, and a hyphen an
# underscore.
THEIR_NAMES = {
    "ssa": [
        *_attention("block", "block.attn", "linear"),
        *_mlp("block", "block", "fc", "linear"),
        ("classifier", "head"),
    ],
    "qk": [
        *_attention("block", "block.tssa", "conv"),
        *_mlp("block", "block", "mlp", "conv"),
        ("classifier", "head"),
    ],
    "espikeformer": [
        *_mlp("block", "block", "fc", "conv"),
        *_table(r"""
down(\d)_(\w+) downsample\1.encode-\2
convolution_separable_expand conv-block.Conv.pwconv1.0
convolution_separable_expand_bn conv-block.Conv.pwconv1.1
convolution_separable_depthwise conv-block.Conv.dwconv.0
convolution_separable_depthwise_bn conv-block.Conv.dwconv.1
convolution_separable_project conv-block.Conv.pwconv2.0
convolution_separable_project_bn conv-block.Conv.pwconv2.1
convolution_(\d)_(\w+) conv-block.\2\1
block_separable_expand block.conv.pwconv1.0
block_separable_expand_bn block.conv.pwconv1.1
block_separable_depthwise block.conv.dwconv.0
block_separable_depthwise_bn block.conv.dwconv.1
block_separable_project block.conv.pwconv2.0
block_separable_project_bn block.conv.pwconv2.1
block_attention_query block.attn.q-conv.0
block_attention_query_bn block.attn.q-conv.1
block_attention_key block.attn.k-conv.0
block_attention_key_bn block.attn.k-conv.1
block_attention_value block.attn.v-conv.0
block_attention_value_bn block.attn.v-conv.1
block_attention_output block.attn.proj-conv.0
block_attention_output_bn block.attn.proj-conv.1
classifier head"""),
    ],
    "maxformer": [
        *_attention("stage2", "stage2.attn", "conv"),
        *_mlp("stage1", "stage1", "fc", "conv"),
        *_mlp("stage2", "stage2", "fc", "conv"),
        *_table(r"""
patches1_1_(\w+) patch-embed1.proj-\1
patches1_2_(\w+) patch-embed1.embed1.embed-\1
patches1_shortcut_(\w+) patch-embed1.embed2.embed-\1
stage1_depthwise stage1.mixer.conv
stage1_depthwise_bn stage1.mixer.conv-bn
patches2_1_(\w+) patch-embed2.max-embed1.embed-\1
patches2_2_(\w+) patch-embed2.embed1.embed-\1
patches2_shortcut_(\w+) patch-embed2.max-embed2.embed-\1
classifier head"""),
    ],
    "mlp": [],
    "vgg": _table("""
block1_conv1 f.0
block1_bn1 f.1
block2_conv1 f.4
block2_bn1 f.5"""),
    "res": _table("""
stem_conv conv0.0
stem_bn conv0.1
shortcut_conv shortcut.0
shortcut_bn shortcut.1"""),
    "sew": _table(r"""
stem_conv conv0.0
stem_bn conv0.1
shortcut_conv downsample.0
shortcut_bn downsample.1
_conv(\d) _convNeuron\1.0
_bn(\d) _convNeuron\1.1"""),
    "pre": _table("""
stem_conv conv1
stem_bn bn1
shortcut_conv downsample.0
shortcut_bn downsample.1"""),
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
    return f"{layer.replace('_', '.').replace('-', '_')}.{THEIR_KINDS[kind]}"


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
        x = layers.AveragePooling2D(2, name=f"{name}_pool")(
            vgg_models.block(x, [filters], neuron, name, normalization)
        )
    return _classified(inputs, layers.Flatten()(x), "vgg")


def vgg_ws(width, neuron):
    """Standardised kernels, and spikes scaled by 2.74 before they are pooled."""
    return vgg(width, neuron, "weight")


def res(width, neuron):
    inputs = keras.Input((8, 8, 3))
    x = resnet.unit(inputs, width, 3, 1, neuron, name="res_stem")
    return _two_blocks(inputs, x, width, neuron, resnet.basic_block, "res")


def sew(width, neuron):
    inputs = keras.Input((8, 8, 3))
    x = sew_resnet.unit(inputs, width, 3, 1, neuron, name="sew_stem")
    return _two_blocks(inputs, x, width, neuron, sew_resnet.basic_block, "sew")


def pre(width, neuron):
    inputs = keras.Input((8, 8, 3))
    x = preact_resnet.unit(inputs, width, 3, 1, None, name="pre_stem")
    return _two_blocks(inputs, x, width, neuron, preact_resnet.basic_block, "pre")


def _plan(settings, inputs):
    """The arguments of a block of the transformers."""
    return Design(
        inputs=inputs,
        edition="cifar",
        classes=5,
        dims=settings["dim"],
        depths=(1,),
        heads=settings["heads"],
        mlp_ratio=2,
        neuron=spikformer_neuron,
        attention_neuron=spikformer_attention_neuron,
    )


def ssa(settings, shape):
    """A block of Spikformer on tokens, or on images in the edition "conv"."""
    inputs = keras.Input(shape)
    plan = _plan(settings, inputs)
    attention = plan.attention(
        spiking_self_attention,
        inputs,
        "ssa_block",
        use_bias=settings["edition"] != "conv",
    )
    x = spike_block(inputs, attention, plan, "ssa_block")
    mean = (
        layers.GlobalAveragePooling1D
        if len(shape) == 2
        else layers.GlobalAveragePooling2D
    )
    return keras.Model(inputs, layers.Dense(5, name="ssa_classifier")(mean()(x)))


def qk(settings, shape):
    """A block of QKFormer's token attention."""
    inputs = keras.Input(shape)
    x = qkformer.block(inputs, _plan(settings, inputs), "qk_block")
    return keras.Model(
        inputs,
        layers.Dense(5, name="qk_classifier")(layers.GlobalAveragePooling2D()(x)),
    )


def max_former(settings, shape):
    """Both embeddings of Max-Former on CIFAR, a block without attention, and one with
    attention."""
    inputs, size = keras.Input(shape), 3 if settings["mixer"] == "Block_DWC3" else None
    plan = _plan(settings, inputs)
    x = maxformer.first_patches_cifar(
        inputs, settings["dim"] // 2, plan, "maxformer_patches1"
    )
    x = maxformer.convolution_block(x, plan, "maxformer_stage1", size)
    x = tokens(
        maxformer.patches(x, settings["dim"], plan, "maxformer_patches2"),
        "maxformer_tokens",
    )
    x = maxformer.attention_block(x, plan, "maxformer_stage2")
    x = plan.neuron()(layers.GlobalAveragePooling1D()(x))
    return keras.Model(inputs, layers.Dense(5, name="maxformer_classifier")(x))


def e_spike_former(settings, shape):
    """A block of convolutions and a block of attention, each after a convolution of
    stride 2."""
    inputs, dims = keras.Input(shape), settings["dim"]
    parts = espikeformer.BlockSettings(
        espikeformer.integer_neuron, settings["heads"], mlp_ratio=2
    )
    x = espikeformer.downsampling(inputs, dims, 3, 2, None, "espikeformer_down1")
    x = espikeformer.convolution_block(x, parts, "espikeformer_convolution")
    x = espikeformer.downsampling(x, dims, 3, 2, parts, "espikeformer_down2")
    x = espikeformer.attention_block(x, parts, "espikeformer_block")
    x = espikeformer.count_neuron()(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(5, name="espikeformer_classifier")(x))


TRANSFORMERS = {
    "espikeformer": e_spike_former,
    "ssa": ssa,
    "qk": qk,
    "maxformer": max_former,
}
NETWORKS = {"mlp": mlp, "vgg": vgg, "res": res, "sew": sew, "pre": pre}
