"""Small checkpoints of the authors' programs, and what the programs compute from them.

`tests/reference/authors/NAME.pth` is a checkpoint as the program writes it, with random
weights. `NAME.npz` has images `x`, channels first, `logits`, the authors' names of the
neuron `layers`, and `counts` of spikes, `(layers, T, samples)`. QKFormer's
`logits_single` and `counts_single` are those of the samples one by one. `meta` has the
program, its commit and the arguments.
"""

import json
import pathlib
import re

import keras
import numpy as np

import keras_ratesnn as rsnn

ATTENTION = {
    "q": "query_neuron",
    "k": "key_neuron",
    "v": "value_neuron",
    "attn": "neuron",
    "proj": "output_neuron",
}
ATTENTION["x"] = "input_neuron"


def block_neurons(theirs, ours, attention, mlp):
    """The neurons in the blocks of a transformer."""
    return {
        **{
            f"{theirs}.{attention}.{part}_lif": f"{ours}_attention_{name}"
            for part, name in ATTENTION.items()
        },
        f"{theirs}.mlp.{mlp}{{n}}_lif": f"{ours}_mlp{{n}}_neuron",
    }


FOLDER = pathlib.Path(__file__).parent / "reference" / "authors"

NEURONS = {
    "ratebp_resnet18": {
        "conv0.2": "stem_neuron",
        "layer{s}.{b}.spike{n}": "stage{s}_block{b+1}_neuron{n}",
    },
    "ratebp_preact_resnet18": {"layer{s}.{b}.sn{n}": "stage{s}_block{b+1}_neuron{n}"},
    "ratebp_sew_resnet18": {
        "convNeuron1.2": "stem_neuron",
        "layer{s}.{b}.convNeuron{n}.2": "stage{s}_block{b+1}_neuron{n}",
        "layer{s}.{b}.downsample.2": "stage{s}_block{b+1}_shortcut_neuron",
    },
    "sew_resnet18": {
        "sn1": "stem_neuron",
        "layer{s}.{b}.sn{n}": "stage{s}_block{b+1}_neuron{n}",
        "layer{s}.{b}.downsample.1": "stage{s}_block{b+1}_shortcut_neuron",
    },
    "ratebp_vgg11": {
        f"feature.{place}": f"block{block}_neuron{number}"
        for place, block, number in zip(
            (2, 6, 9, 13, 16, 20, 24, 27),
            (1, 2, 2, 3, 3, 4, 5, 5),
            (1, 1, 2, 1, 2, 1, 1, 2),
            strict=True,
        )
    },
    "ratebp_vggsnn": {
        f"feature.{place}": f"block{block}_neuron{number}"
        for place, block, number in zip(
            (2, 5, 9, 12, 16, 19, 23, 26),
            (1, 1, 2, 2, 3, 3, 4, 4),
            (1, 2) * 4,
            strict=True,
        )
    },
}
"""The authors' names of neuron layers, and ours."""
SPIKFORMER = {
    "patch_embed.proj_lif": "patches1_neuron",
    "patch_embed.proj_lif{n}": "patches{n+1}_neuron",
    "patch_embed.rpe_lif": "patches_position_neuron",
    **block_neurons("block.{b}", "block{b+1}", "attn", "fc"),
}
QKFORMER = {
    "patch_embed1.proj_lif": "patches1_1_neuron",
    "patch_embed1.proj{n}_lif": "patches1_{n+1}_neuron",
    "patch_embed{p}.proj_res_lif": "patches{p}_shortcut_neuron",
    "patch_embed{p}.proj3_lif": "patches{p}_1_neuron",
    "patch_embed{p}.proj4_lif": "patches{p}_2_neuron",
    **block_neurons("stage{s}.{b}", "stage{s}_block{b+1}", "tssa", "mlp"),
    **block_neurons("stage{s}.{b}", "stage{s}_block{b+1}", "tssa", "fc"),
    **block_neurons("stage{s}.{b}", "stage{s}_block{b+1}", "ssa", "mlp"),
    **block_neurons("stage{s}.{b}", "stage{s}_block{b+1}", "attn", "fc"),
}
MAXFORMER = {
    "patch_embed{p}.max_embed1.embed_lif": "patches{p}_neuron",
    "patch_embed{p}.embed1.embed_lif": "patches{p}_1_neuron",
    "stage{s}.{b}.mixer.conv_neuron": "stage{s}_block{b+1}_depthwise_neuron",
    "stage{s}.{b}.mixer.conv5_neuron": "stage{s}_block{b+1}_depthwise_neuron",
    "head_lif": "neuron",
    **block_neurons("stage{s}.{b}", "stage{s}_block{b+1}", "attn", "fc"),
}
NEURONS |= {f"spikformer_{edition}": SPIKFORMER for edition in ("cifar", "imagenet")}
NEURONS |= {f"qkformer_{edition}": QKFORMER for edition in ("cifar", "imagenet")}
NEURONS["qkformer_dvs"] = {**QKFORMER, "patch_embed2.proj_lif": "patches2_1_neuron"}
# These neurons come before the convolutions of their names.
NEURONS["maxformer_cifar"] = {
    "patch_embed1.embed2.embed_lif": "patches1_shortcut_neuron",
    **MAXFORMER,
}
NEURONS["maxformer_dvs"] = {
    f"patch_embed1.max_embed{n}.embed_lif": f"patches1_{n}_neuron" for n in (1, 2, 3)
} | MAXFORMER
NEURONS["maxformer_imagenet"] = {
    "patch_embed1.embed2.embed_lif": "patches1_1_neuron",
    "patch_embed1.embed3.embed_lif": "patches1_2_neuron",
    **MAXFORMER,
}
NEURONS["ratebp_resnet19"] = {
    **NEURONS["ratebp_resnet18"],
    "classifier.1": "hidden_neuron",
}
NEURONS["sew_resnet18_legacy"] = NEURONS["sew_resnet18"]
STAGES = ((1, 1, "1_1", 0), (2, 1, "1_2", 0), (3, 1, "2_1", 0), (3, 2, "2_2", 0))
"""The blocks of convolutions of E-SpikeFormer: our stage and block, and theirs."""
ESPIKEFORMER = {
    **{
        f"downsample{name}.encode_spike": f"down{n}_neuron"
        for n, name in enumerate(("1_1", "1_2", "2", "3", "4"), 1)
    },
    **{
        theirs.replace("STAGE", stage).replace(
            "BLOCK", str(block)
        ): f"stage{n}_block{m}{ours}"
        for n, m, stage, block in STAGES
        for theirs, ours in {
            "ConvBlockSTAGE.BLOCK.Conv.spike{n}": "_separable_neuron{n}",
            "ConvBlockSTAGE.BLOCK.spike{n}": "_neuron{n}",
        }.items()
    },
    "spike": "neuron",
}
LARGE = {}
for theirs, ours in {
    "block3.{b}": "stage4_block{b+1}",
    "block4.{b}": "stage5_block{b+1}",
}.items():
    ESPIKEFORMER[f"{theirs}.conv.spike{{n}}"] = f"{ours}_separable_neuron{{n}}"
    in_block = block_neurons(theirs, ours, "attn", "fc")
    LARGE |= {
        name.replace("x_lif", "head_lif"): neuron for name, neuron in in_block.items()
    }
ESPIKEFORMER |= {
    name.replace("_lif", "_spike"): neuron for name, neuron in LARGE.items()
}
LARGE |= {
    f"downsample{name}.encode_lif": f"down{n}_neuron"
    for n, name in enumerate(("1_1", "1_2", "2", "3"), 1)
}
LARGE |= {
    f"ConvBlock{stage}.{block}.neuron{{n}}": f"stage{n}_block{m}_neuron{{n}}"
    for n, m, stage, block in STAGES
}
NEURONS |= {"espikeformer": ESPIKEFORMER, "espikeformer_large": LARGE}
NEURONS["espikeformer_large_base"] = {
    **LARGE,
    "block3.{b}.lif": "stage4_block{b+1}_shortcut_neuron",
    "lif": "distilled_neuron",
}
NEURONS["ms_resnet18"] = {
    **{
        f"conv{s + 1}_x.{{b}}.residual_function.{place}": (
            f"stage{s}_block{{b+1}}_neuron{n}"
        )
        for s in (1, 2, 3, 4)
        for n, place in ((1, 0), (2, 3))
    },
    "mem_update": "last_neuron",
}
NEURONS["spikingresformer"] = {
    "layers.{s}.0.activation": "down{s+1}_neuron",
    # The first stage has no layer for the size; each has one block.
    **{
        f"layers.{s}.{part + (s > 0)}.{theirs}": f"stage{s + 1}_block1_{ours}_neuron"
        for s in (0, 1, 2)
        for part, theirs, ours in (
            (0, "activation_in", "attention_input"),
            (0, "activation_attn", "attention"),
            (0, "activation_out", "attention_output"),
            (1, "up.0", "mlp1"),
            (1, "conv.0.0", "mlp2"),
            (1, "down.0", "mlp3"),
        )
    },
}


# The same layers as Spikformer's; the fourth convolution is pooled before its neurons,
# and the blocks have a neuron more.
NEURONS["sdt_v1"] = {
    **SPIKFORMER,
    "block.{b}.attn.shortcut_lif": "block{b+1}_attention_input_neuron",
    "block.{b}.attn.talking_heads_lif": "block{b+1}_attention_neuron",
    "head_lif": "neuron",
}
NEURONS["sdt_v2"] = {
    **{
        name.replace("encode_spike", "encode_lif").replace(".spike", ".lif"): ours
        for name, ours in ESPIKEFORMER.items()
    },
    **LARGE,
    "lif": "neuron",
}


class Case:
    """A checkpoint and what the authors' program computes from it."""

    def __init__(self, name):
        self.name, self.path = name, FOLDER / f"{name}.pth"
        with np.load(FOLDER / f"{name.removesuffix('_legacy')}.npz") as arrays:
            self.arrays = dict(arrays)
        self.meta = json.loads(str(self.arrays["meta"]))
        self.x = self.arrays["x"]
        if keras.config.image_data_format() == "channels_last":
            self.x = np.moveaxis(self.x, -3, -1)

    def model(self, **kwargs):
        """The network; `kwargs` replace the arguments that weights do not tell."""
        heads = self.meta["arguments"].get("num_heads")
        if self.meta["library"]:
            heads = self.meta["library"]["arguments"].get("heads")
        arguments = {
            "path": self.path,
            "timesteps": self.meta["timesteps"],
            # Those of each stage are told.
            "heads": heads if isinstance(heads, int) else None,
            "input_shape": self.x.shape[-3:],
            "verbose": False,
        }
        return rsnn.models.from_checkpoint(**{**arguments, **kwargs})

    def report(self, **kwargs):
        return self.model(**kwargs).checkpoint_report

    @property
    def logits(self):
        return self.arrays.get("logits_single", self.arrays["logits"])

    def counts(self, batch=False):
        """The authors' spikes by our names of layers: arrays `(samples, T)`; of
        QKFormer those of a batch, or of each sample.

        The last neurons of the large E-SpikeFormer, `None` here, are those before a
        classifier that this case does without.
        """
        counts = self.arrays["counts"]
        if not batch:
            counts = self.arrays.get("counts_single", counts)
        layers = [our_name(NEURONS[self.name], name) for name in self.arrays["layers"]]
        return {layer: count.T for layer, count in zip(layers, counts, strict=True)}


def our_name(names, layer):
    """Of the first entry that fits a layer of the authors, or `None`."""
    for theirs, ours in names.items():
        pattern = re.sub(r"\\\{(\w)\\\}", r"(?P<\1>\\d+)", re.escape(theirs))
        numbers = re.fullmatch(pattern, str(layer))
        if numbers:
            for name, number in numbers.groupdict().items():
                ours = ours.replace(f"{{{name}}}", number)
                ours = ours.replace(f"{{{name}+1}}", str(int(number) + 1))
            return ours
    return None


def counted(model, x):
    """The spikes of each neuron layer: arrays `(samples, T)`."""
    samples = []
    for sample in x:
        rates = rsnn.analysis.firing_rates(model, sample[None])
        sizes = [neurons.size for neurons in rates.by_neuron]
        samples.append(np.rint(np.array(rates.by_step) * np.array(sizes)[:, None]))
    counts = np.stack(samples, axis=1)
    return dict(zip(rates.layers, counts, strict=True))
