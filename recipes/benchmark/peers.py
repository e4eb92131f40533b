"""The benchmark's networks in other libraries, for small images, trained with their BPTT: a ResNet-18, and a Max-Former."""

import torch
from torch import nn

from recipes import device
from recipes.benchmark.settings import CHANNELS, CLASSES, TRANSFORMER_DIMS

STAGES = (64, 128, 256, 512)
BLOCKS = 2
DECAY, ALPHA = 0.2, 4.0
"""Membrane decay and steepness of the sigmoid surrogate, as in `keras_ratesnn.layers.LIF`."""

LEARNING_RATE = 0.01
"""The learning rate of Keras' "sgd"."""


def trainer(library, width, timesteps, precision="float32", network="ResNet18"):
    """A `Trainer` of a network in one of the libraries.

    Args:
        library: "spikingjelly" or "snntorch".
        width: Float > 0 that multiplies the number of channels of every layer.
        timesteps: Integer T.
        precision: "float32" or "mixed_bfloat16", which is PyTorch's autocast. Defaults to `"float32"`.
        network: A name of `networks` of the peer. Defaults to `"ResNet18"`.
    """
    networks = {
        ("spikingjelly", "ResNet18"): SpikingJelly,
        ("spikingjelly", "MaxFormer"): SpikingJellyMaxFormer,
        ("snntorch", "ResNet18"): SnnTorch,
    }
    network = networks[library, network](width, timesteps)
    if device.gpu():
        network.to("cuda")
        if library == "spikingjelly" and precision == "mixed_bfloat16":
            _use_fused_neurons_in_half_precision(network)
    return Trainer(network, precision)


def _use_fused_neurons_in_half_precision(network):
    """Without this SpikingJelly's neurons run operation by operation in half precision, whatever it could use."""
    from spikingjelly.activation_based.precision import PrecisionConfig, prepare_model_for_precision

    prepare_model_for_precision(network, "cuda", PrecisionConfig(mode="bf16", neuron_storage="bf16"))


class Trainer:
    """Trains a network with SGD on cross-entropy.

    Args:
        network: A PyTorch module whose neurons start at rest in each call.
        precision: "float32" or "mixed_bfloat16".
    """

    def __init__(self, network, precision):
        self.network = network.train()
        self.autocast = precision == "mixed_bfloat16"
        self.optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE)

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


class ResNet18(nn.Module):
    """The network in two parts; only the second runs over time.

    The stem, before the first neurons, runs once on an image without time, as in keras_ratesnn.

    Args:
        width: Float > 0 that multiplies the number of channels of every layer.
        timesteps: Integer T.
        parts: Module with the library's `Conv2d`, `BatchNorm2d`, `AdaptiveAvgPool2d`, `Flatten` and `Linear`.
        neuron: Function that returns a new neuron layer.
    """

    def __init__(self, width, timesteps, parts, neuron):
        super().__init__()
        self.timesteps = timesteps
        channels = [max(1, round(width * channels)) for channels in STAGES]
        self.stem = nn.Sequential(nn.Conv2d(CHANNELS, channels[0], 3, padding=1, bias=False), nn.BatchNorm2d(channels[0]))
        blocks, before = [], channels[0]
        for stage, number in enumerate(channels):
            for block in range(BLOCKS):
                blocks.append(Block(before, number, 2 if stage > 0 and block == 0 else 1, parts, neuron))
                before = number
        head = parts.AdaptiveAvgPool2d(1), parts.Flatten(), parts.Linear(before, CLASSES)
        self.stages = nn.Sequential(neuron(), *blocks, *head)


class SpikingJelly(ResNet18):
    """Multi-step mode: a layer sees all steps at once. On a GPU the library picks its own kernels.

    Args:
        width: Float > 0.
        timesteps: Integer T.
    """

    def __init__(self, width, timesteps):
        from spikingjelly.activation_based import functional, layer, neuron, surrogate

        def new_neuron():
            return neuron.LIFNode(
                tau=1 / (1 - DECAY),
                decay_input=False,
                v_reset=None,
                surrogate_function=surrogate.Sigmoid(ALPHA),
                detach_reset=True,
            )

        super().__init__(width, timesteps, layer, new_neuron)
        self.reset = functional.reset_net
        functional.set_step_mode(self.stages, "m")

    def forward(self, images):
        self.reset(self.stages)
        current = self.stem(images)
        return self.stages(current.expand(self.timesteps, *current.shape).contiguous()).mean(0)


class SpikingJellyMaxFormer(nn.Module):
    """SpikingJelly's own Max-Former-4-384 for small images, in multi-step mode.

    What comes before the first neurons runs once on an image without time, as in keras_ratesnn. In the package's own class it
    runs in each step.

    Args:
        width: Float > 0 that multiplies the number of channels.
        timesteps: Integer T.
    """

    def __init__(self, width, timesteps):
        from spikingjelly.activation_based import functional
        from spikingjelly.activation_based.model.maxformer import MaxFormer

        super().__init__()
        dims = round(width * TRANSFORMER_DIMS)
        self.network = MaxFormer(timesteps, CHANNELS, CLASSES, embed_dims=dims, depths=(1, 1, 2), cifar=True)
        before = self.network.patch_embed1
        before.bn = nn.Sequential(before.bn, Repeated(timesteps))
        self.reset = functional.reset_net

    def forward(self, images):
        self.reset(self.network)
        # One step; `Repeated` makes the others.
        return self.network(images[None])


class Repeated(nn.Module):
    """Repeats a tensor of one step, on the first axis.

    Args:
        timesteps: Integer T.
    """

    def __init__(self, timesteps):
        super().__init__()
        self.timesteps = timesteps

    def forward(self, x):
        return x.expand(self.timesteps, *x.shape[1:]).contiguous()


class SnnTorch(ResNet18):
    """A loop over time around the network, as is usual with this library.

    Its neurons subtract the threshold at the next step, after the decay: `reset_delay=True`, the library's default. The
    undelayed reset is not detached from the gradient, so it differs more from ours.

    Args:
        width: Float > 0.
        timesteps: Integer T.
    """

    def __init__(self, width, timesteps):
        import snntorch
        from snntorch import surrogate

        def new_neuron():
            return snntorch.Leaky(beta=DECAY, spike_grad=surrogate.sigmoid(slope=ALPHA), init_hidden=True)

        super().__init__(width, timesteps, nn, new_neuron)
        self.neurons = [module for module in self.modules() if isinstance(module, snntorch.Leaky)]

    def forward(self, images):
        for neuron in self.neurons:
            neuron.reset_mem()
        current = self.stem(images)
        return sum(self.stages(current) for _ in range(self.timesteps)) / self.timesteps


class Block(nn.Module):
    """Two 3x3 convolutions, with neurons after the first and after the sum with the shortcut.

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
                parts.Conv2d(channels_in, channels_out, 1, stride, bias=False), parts.BatchNorm2d(channels_out)
            )
        self.neuron = neuron()

    def forward(self, x):
        return self.neuron(self.main(x) + self.shortcut(x))
