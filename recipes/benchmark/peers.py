"""The benchmark's networks in other libraries, trained with their BPTT.

Imports of the libraries are where they are needed: each may be missing.
"""

import copy
import dataclasses
import functools
import math

import torch
from torch import nn

from recipes import device
from recipes.benchmark import cases, costs
from recipes.benchmark.cases import CHANNELS, CLASSES, TRANSFORMER_DIMS
from recipes.benchmark.settings import PEERS
from recipes.benchmark.translated import Segment, Translated

LEARNING_RATE = 0.01
"""The learning rate of Keras' "sgd"."""

OTHER_WORK = ("Recurrent", "SlidingPSN")
"""Networks whose layers do more in other libraries than ours."""


def trainer(settings, method, timesteps):
    """A `Trainer` of the network of the settings in another library.

    Args:
        settings: `Settings`.
        method: A name of `PEERS`.
        timesteps: Integer T.

    Raises:
        AssertionError: If a step of the network is not the work of a step of ours by
            BPTT.
    """
    peer = PEERS[method]
    samples, labels = cases.batch(settings, timesteps, method)
    if settings.network == "MaxFormer":
        network = SpikingJellyMaxFormer(settings.width, timesteps).to(samples.device)
    else:
        # In eager mode: the operations of a compiled graph cannot be counted.
        eager = dataclasses.replace(settings, methods=(), jit_compile=False)
        ours = cases.trainer(eager, "bptt-multi", timesteps)
        network = Translated(ours, peer.package).to(samples.device)
        if settings.network not in OTHER_WORK:
            some = samples[:2], labels[:2]
            check_equal_work(ours, network, some, settings.precision)
    is_half = settings.precision == "mixed_bfloat16"
    if peer.package == "spikingjelly" and is_half and device.gpu():
        _use_fused_neurons_in_half_precision(network)
    made = Trainer(network, settings.precision)
    if peer.memopt:
        optimize_memory(made, samples, peer.memopt)
    return made


def check_equal_work(ours, network, batch, precision):
    """Raises AssertionError unless both networks have as many parameters, and a step by
    BPTT as many FLOPs.

    Args:
        ours: Keras model, compiled, with the gradient "bptt" if it has one. It is
            trained.
        network: The same network as a module of PyTorch.
        batch: Samples and labels, tensors.
        precision: "float32" or "mixed_bfloat16".
    """
    theirs = Trainer(copy.deepcopy(network), precision)
    # The first step of ours builds it, too.
    ours.train_on_batch(*batch)
    flops = {
        name: costs.counted_flops(functools.partial(model.train_on_batch, *batch))
        for name, model in {"ours": ours, "theirs": theirs}.items()
    }
    parameters = {
        "ours": number_of_parameters(ours.trainable_variables),
        "theirs": number_of_parameters(network.parameters()),
    }
    for what, counted in (("FLOPs of a step", flops), ("parameters", parameters)):
        if counted["ours"] != counted["theirs"]:
            raise AssertionError(
                f"The translated network is another one: {what} are {counted}."
            )


def number_of_parameters(weights):
    """The number of parameters in variables or tensors."""
    return sum(math.prod(weight.shape) for weight in weights)


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


def optimize_memory(trainer, images, level):
    """Applies SpikingJelly's memory optimisation to the segments of a trainer's
    network, in place, with the settings of the library's example.

    Args:
        trainer: `Trainer` of a `Translated` network of SpikingJelly.
        images: Tensor, a batch of the size that is trained with.
        level: Integer 1 to 4: 1 recomputes segments in the backward pass, 2 splits them
            where that saves memory, 3 splits neurons in time, 4 keeps what costs no
            memory. Levels 2 to 4 measure, on a GPU only.
    """
    from spikingjelly.activation_based import memopt, neuron

    def forward(network):
        with trainer.precision(images.device.type):
            return network(images)

    memopt.optimize_memory(
        trainer.network,
        Segment,
        forward,
        level=level,
        split_fn=lambda module: module.parts if isinstance(module, Segment) else (),
        can_chunk=lambda module: isinstance(module, neuron.BaseNode),
    )


class Trainer:
    """Trains a network on cross-entropy.

    Args:
        network: A PyTorch module whose neurons start at rest in each call.
        precision: "float32" or "mixed_bfloat16", which is PyTorch's autocast.
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

    def train_on_batch(self, samples, labels):
        """One step; returns the loss, a float."""
        self.optimizer.zero_grad()
        with self.precision(samples.device.type):
            loss = nn.functional.cross_entropy(self.network(samples), labels)
        loss.backward()
        self.optimizer.step()
        return loss.item()


class SpikingJellyMaxFormer(nn.Module):
    """SpikingJelly's own Max-Former-4-384 for small `channels_last` images, in
    multi-step mode.

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
        return self.network(images.permute(0, 3, 1, 2).contiguous()[None])
