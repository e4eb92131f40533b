"""The benchmark's networks in other libraries, trained with their BPTT: a ResNet-18, a
Max-Former, and those of sequences.

Imports of the libraries are where they are needed: each may be missing.
"""

import torch
from torch import nn

from recipes import device
from recipes.benchmark.settings import CHANNELS, CLASSES, ORDER, TRANSFORMER_DIMS

STAGES = (64, 128, 256, 512)
BLOCKS = 2
DECAY, ALPHA = 0.2, 4.0
"""Membrane decay and steepness of the sigmoid surrogate, as in
`keras_ratesnn.layers.LIF`."""

LEARNING_RATE = 0.01
"""The learning rate of Keras' "sgd"."""


def trainer(library, width, timesteps, precision="float32", network="ResNet18"):
    """A `Trainer` of a network for small images in one of the libraries.

    Args:
        library: A name of `LIBRARIES`.
        width: Float > 0 that multiplies the number of channels of every layer.
        timesteps: Integer T.
        precision: "float32" or "mixed_bfloat16", which is PyTorch's autocast. Defaults
            to `"float32"`.
        network: "ResNet18", or "MaxFormer" for SpikingJelly's. Defaults to
            `"ResNet18"`.
    """
    kind = LIBRARIES[library]
    if network == "MaxFormer":
        made = SpikingJellyMaxFormer(width, timesteps)
    else:
        made = kind(*resnet18(width, kind.parts(), kind.lif), timesteps)
    if device.gpu():
        made.to("cuda")
        if library == "spikingjelly" and precision == "mixed_bfloat16":
            _use_fused_neurons_in_half_precision(made)
    return Trainer(made, precision)


def sequence_trainer(library, name, units, depth, classes):
    """A `Trainer` of dense layers of `units`, `depth` of them with neurons after them;
    `None` if the library lacks these.

    Args:
        library: A name of `LIBRARIES`.
        name: String, the name of a case of `sequences.py`.
        units: Integer, the size of the input and of all layers.
        depth: Integer.
        classes: Integer.
    """
    kind, neurons = LIBRARIES[library], NEURONS[library].get(name)
    if neurons is None:
        return None
    linear = kind.parts().Linear
    layers = [
        part for _ in range(depth) for part in (linear(units, units), neurons(units))
    ]
    network = kind(None, nn.Sequential(*layers, linear(units, classes)), None)
    return Trainer(network.to("cuda") if device.gpu() else network, "float32")


def _use_fused_neurons_in_half_precision(network):
    """Without this SpikingJelly's neurons run operation by operation in half precision,
    whatever it could use."""
    from spikingjelly.activation_based.precision import (
        PrecisionConfig,
        prepare_model_for_precision,
    )

    prepare_model_for_precision(
        network, "cuda", PrecisionConfig(mode="bf16", neuron_storage="bf16")
    )


def optimize_memory(trainer, images, level, block=None):
    """Applies SpikingJelly's memory optimisation to a trainer's network, in place, with
    the settings of the library's example.

    Args:
        trainer: `Trainer` of SpikingJelly's network.
        images: Tensor, a batch of the size that is trained with.
        level: Integer 1 to 4: 1 recomputes blocks in the backward pass, 2 splits them
            where that saves memory, 3 splits neurons in time, 4 keeps what costs no
            memory. Levels 2 to 4 measure, on a GPU only.
        block: Class of the blocks, which have the parts `main` and `neuron`. Defaults
            to `None`, `Block`.
    """
    block = block or Block
    from spikingjelly.activation_based import memopt, neuron

    def forward(network):
        with trainer.precision(images.device.type):
            return network(images)

    memopt.optimize_memory(
        trainer.network,
        block,
        forward,
        level=level,
        split_fn=lambda module: (
            (module.main, module.neuron) if isinstance(module, block) else ()
        ),
        can_chunk=lambda module: isinstance(module, neuron.BaseNode),
    )


class Trainer:
    """Trains a network on cross-entropy.

    Args:
        network: A PyTorch module whose neurons start at rest in each call.
        precision: "float32" or "mixed_bfloat16".
        optimizer: One of PyTorch, or what has its `zero_grad` and `step`. Defaults to
            `None`, SGD.
    """

    def __init__(self, network, precision, optimizer=None):
        self.network = network.train()
        self.autocast = precision == "mixed_bfloat16"
        self.optimizer = optimizer or torch.optim.SGD(
            network.parameters(), LEARNING_RATE
        )

    def precision(self, device):
        """The context of a forward pass on a device, "cuda" or "cpu"."""
        return torch.autocast(device, torch.bfloat16, enabled=self.autocast)

    def train_on_batch(self, images, labels):
        """One step; returns the loss, a float."""
        self.optimizer.zero_grad()
        with self.precision(images.device.type):
            loss = nn.functional.cross_entropy(self.network(images), labels)
        loss.backward()
        self.optimizer.step()
        return loss.item()


class OverTime(nn.Module):
    """A network in two parts, of which only the second runs over time, and whose
    outputs are means over time.

    Args:
        stem: Module before the first neurons, which runs once on an image without time,
            as in keras_ratesnn; `None` for sequences `(batch, T, ...)`.
        stages: Module with neurons, which start at rest in each call.
        timesteps: Integer T; `None` for sequences.
    """

    def __init__(self, stem, stages, timesteps):
        super().__init__()
        self.stem, self.stages, self.timesteps = stem, stages, timesteps


class SpikingJelly(OverTime):
    """Multi-step mode: a layer sees all steps at once. On a GPU the library picks its
    own kernels."""

    def __init__(self, stem, stages, timesteps):
        from spikingjelly.activation_based import functional

        super().__init__(stem, stages, timesteps)
        self.reset = functional.reset_net
        functional.set_step_mode(self.stages, "m")

    @staticmethod
    def parts():
        from spikingjelly.activation_based import layer

        return layer

    @staticmethod
    def lif(decay=DECAY, **arguments):
        from spikingjelly.activation_based import neuron, surrogate

        options = {
            "decay_input": False,
            "v_reset": None,
            "detach_reset": True,
            **arguments,
        }
        return neuron.LIFNode(
            tau=1 / (1 - decay), surrogate_function=surrogate.Sigmoid(ALPHA), **options
        )

    def forward(self, x):
        self.reset(self.stages)
        current = x.transpose(0, 1) if self.timesteps is None else self.stem(x)
        steps = (
            current
            if self.timesteps is None
            else current.expand(self.timesteps, *current.shape)
        )
        return self.stages(steps.contiguous()).mean(0)


class SnnTorch(OverTime):
    """A loop over time around the network, as is usual with this library.

    Its neurons subtract the threshold at the next step, after the decay:
    `reset_delay=True`, the library's default. The undelayed reset is not detached from
    the gradient, so it differs more from ours.
    """

    @staticmethod
    def parts():
        return nn

    @staticmethod
    def lif(name="Leaky", beta=DECAY, **arguments):
        import snntorch

        slope = snntorch.surrogate.sigmoid(slope=ALPHA)
        return getattr(snntorch, name)(
            beta=beta, spike_grad=slope, init_hidden=True, **arguments
        )

    def forward(self, x):
        for module in self.stages.modules():
            if hasattr(module, "reset_mem"):
                module.reset_mem()
        steps = (
            x.unbind(1) if self.timesteps is None else [self.stem(x)] * self.timesteps
        )
        return sum(map(self.stages, steps)) / len(steps)


def resnet18(width, parts, neuron):
    """`(stem, stages)` of a ResNet-18.

    Args:
        width: Float > 0 that multiplies the number of channels of every layer.
        parts: Module with the library's `Conv2d`, `BatchNorm2d`, `AdaptiveAvgPool2d`,
            `Flatten` and `Linear`.
        neuron: Function that returns a new neuron layer.
    """
    channels = [max(1, round(width * channels)) for channels in STAGES]
    stem = nn.Sequential(
        nn.Conv2d(CHANNELS, channels[0], 3, padding=1, bias=False),
        nn.BatchNorm2d(channels[0]),
    )
    blocks, before = [], channels[0]
    for stage, number in enumerate(channels):
        for block in range(BLOCKS):
            blocks.append(
                Block(
                    before, number, 2 if stage > 0 and block == 0 else 1, parts, neuron
                )
            )
            before = number
    head = parts.AdaptiveAvgPool2d(1), parts.Flatten(), parts.Linear(before, CLASSES)
    return stem, nn.Sequential(neuron(), *blocks, *head)


class SpikingJellyMaxFormer(nn.Module):
    """SpikingJelly's own Max-Former-4-384 for small images, in multi-step mode.

    What comes before the first neurons runs once on an image without time, as in
    keras_ratesnn. In the package's own class it runs in each step.

    Args:
        width: Float > 0 that multiplies the number of channels.
        timesteps: Integer T.
    """

    def __init__(self, width, timesteps):
        from spikingjelly.activation_based import functional
        from spikingjelly.activation_based.model.maxformer import MaxFormer

        super().__init__()
        dims = round(width * TRANSFORMER_DIMS)
        self.network = MaxFormer(
            timesteps, CHANNELS, CLASSES, embed_dims=dims, depths=(1, 1, 2), cifar=True
        )

        def repeated(module, inputs, output):
            return output.expand(timesteps, *output.shape[1:]).contiguous()

        self.network.patch_embed1.bn.register_forward_hook(repeated)
        self.reset = functional.reset_net

    def forward(self, images):
        self.reset(self.network)
        # One step; `repeated` makes the others.
        return self.network(images[None])


class Block(nn.Module):
    """Two 3x3 convolutions, with neurons after the first and after the sum with the
    shortcut.

    Args:
        channels_in: Integer.
        channels_out: Integer.
        stride: Integer.
        parts: Module with `Conv2d` and `BatchNorm2d`.
        neuron: Function that returns a new neuron layer.
    """

    def __init__(self, channels_in, channels_out, stride, parts, neuron):
        super().__init__()
        self.main = nn.Sequential(
            parts.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
            parts.BatchNorm2d(channels_out),
            neuron(),
            parts.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            parts.BatchNorm2d(channels_out),
        )
        self.shortcut = nn.Identity()
        if stride > 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                parts.Conv2d(channels_in, channels_out, 1, stride, bias=False),
                parts.BatchNorm2d(channels_out),
            )
        self.neuron = neuron()

    def forward(self, x):
        return self.neuron(self.main(x) + self.shortcut(x))


def _recurrent(units):
    """Its synapse, from the input and the spikes, comes after a dense layer, so it does
    more than ours."""
    return SpikingJelly.parts().LinearRecurrentContainer(
        SpikingJelly.lif(), units, units, bias=False
    )


def _sliding(units):
    from spikingjelly.activation_based import neuron, surrogate

    return neuron.SlidingPSN(ORDER, surrogate_function=surrogate.Sigmoid(ALPHA))


LIBRARIES = {"spikingjelly": SpikingJelly, "snntorch": SnnTorch}
NEURONS = {
    "spikingjelly": {
        "LIF": lambda units: SpikingJelly.lif(),
        "Recurrent": _recurrent,
        "SlidingPSN": _sliding,
    },
    "snntorch": {
        "LIF": lambda units: SnnTorch.lif(),
        "Recurrent": lambda units: SnnTorch.lif("RLeaky", linear_features=units),
    },
}
"""The neurons of each case of `sequences.py` that a library has, by library."""
