"""SpikingJelly's memory optimisation of the benchmark's network. Needs PyTorch and SpikingJelly."""

from spikingjelly.activation_based import memopt, neuron

from recipes.benchmark.peers import Block


def optimize(trainer, images, level):
    """Applies SpikingJelly's memory optimisation to a trainer's network, in place, with the settings of the library's example.

    Args:
        trainer: `Trainer` of SpikingJelly's network.
        images: Tensor, a batch of the size that is trained with.
        level: Integer 1 to 4: 1 recomputes blocks in the backward pass, 2 splits them where that saves memory, 3 splits neurons
            in time, 4 keeps what costs no memory. Levels 2 to 4 measure, on a GPU only.
    """

    def forward(network):
        with trainer.precision(images.device.type):
            return network(images)

    memopt.optimize_memory(
        trainer.network,
        Block,
        forward,
        level=level,
        split_fn=lambda module: (module.main, module.neuron) if isinstance(module, Block) else (),
        can_chunk=lambda module: isinstance(module, neuron.BaseNode),
    )
