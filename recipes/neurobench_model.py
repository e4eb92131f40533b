"""A network as NeuroBench's harness takes it: `neurobench_model(model)` in
`neurobench.benchmarks.Benchmark`.

NeuroBench counts in modules of PyTorch, and does not see Keras' layers. So the network
goes through NIR, to SpikingJelly, which resets neurons as they are reset here, softly
as well; snnTorch reads every reset of a NIR file as a hard one.
"""

import pathlib
import tempfile

import numpy as np

from keras_ratesnn.deploy import export_nir
from keras_ratesnn.layers import Neuron
from recipes import packages
from recipes.run import layers_of


def neurobench_model(model):
    """The `neurobench.models.NeuroBenchModel` of a `SpikingModel`.

    It takes what `model.predict` takes, as tensors of PyTorch, and returns the time
    means of the outputs.

    Args:
        model: A `SpikingModel` that `export_nir` can write, with one input, of 1 axis
            or of 3.

    Raises:
        ImportError: If a package is missing.
        ValueError: If the network cannot be written, has other inputs, or has neurons
            that are reset in two ways.
    """
    models = packages.imported("neurobench.models", "neurobench_model", "neurobench")
    import torch
    from spikingjelly.activation_based import neuron, nir_exchange

    shape, timesteps = model.network.input_shape[1:], model.timesteps
    if not all(isinstance(size, int) for size in shape) or len(shape) not in (1, 3):
        raise ValueError(
            "`model` must have one input, of 1 axis or of 3. Received: "
            f"input_shape={model.network.input_shape}."
        )
    resets = {
        layer.cell.reset
        for layer in layers_of(model.network)
        if isinstance(layer, Neuron)
    }
    if len(resets) > 1:
        raise ValueError(
            "`model` must reset all neurons in the same way. Received: neurons with "
            f"resets {sorted(resets)}."
        )
    with tempfile.TemporaryDirectory() as folder:
        path = str(pathlib.Path(folder, "network.nir"))
        export_nir(model, path)
        network = nir_exchange.import_from_nir(path)

    class Spikes(torch.nn.Identity):
        """Modules for NeuroBench: the neurons themselves return their states, too."""

    class Neurons(torch.nn.Module):
        def __init__(self, neurons):
            super().__init__()
            self.neurons, self.spikes = neurons, Spikes()

        def forward(self, inputs, state=None):
            spikes, state = self.neurons(inputs, state=state)
            return self.spikes(spikes), state

    for name, part in list(network.named_children()):
        for node in part.modules():
            if isinstance(node, neuron.BaseNode):
                node.v_reset = None if resets == {"soft"} else node.v_reset
                setattr(network, name, Neurons(part))

    class Network(models.NeuroBenchModel):
        def __init__(self):
            super().__init__()
            self.add_activation_module(Spikes)

        def __net__(self):
            return network

        def __call__(self, batch):
            has_time, state, outputs = batch.dim() == len(shape) + 2, None, []
            with torch.no_grad():
                for t in range(timesteps):
                    step = batch[:, t] if has_time else batch
                    if len(shape) == 3:
                        # Channels come first in NIR.
                        step = torch.movedim(step, -1, 1).contiguous()
                    output, state = network(step, state)
                    outputs.append(output)
            return torch.stack(outputs).mean(0)

    return Network()


def firing_rate(description):
    """The mean firing rate of all neurons of what `describe` returns: 1 minus
    NeuroBench's activation sparsity."""
    sizes = [np.prod(layer.output_shape) for layer in description.layers]
    return float(
        np.average([layer.firing_rate for layer in description.layers], weights=sizes)
    )
