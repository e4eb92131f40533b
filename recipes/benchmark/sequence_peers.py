"""The networks of `sequences.py` in SpikingJelly and snnTorch, trained with their BPTT; inputs are `(batch, T, units)`."""

from torch import nn

from recipes.benchmark.peers import ALPHA, DECAY


class SpikingJelly(nn.Module):
    """Multi-step mode: a layer sees all steps at once. The recurrent container runs its neurons step by step.

    Args:
        neurons: Function of the number of units that returns a module.
        units: Integer, the size of the input and of all layers.
        depth: Integer, the number of layers of neurons.
        classes: Integer.
    """

    def __init__(self, neurons, units, depth, classes):
        from spikingjelly.activation_based import functional, layer

        super().__init__()
        parts = [part for _ in range(depth) for part in (layer.Linear(units, units), neurons(units))]
        self.network = nn.Sequential(*parts, layer.Linear(units, classes))
        for module in self.network:
            # Not those inside of a container.
            module.step_mode = "m"
        self.reset = functional.reset_net

    def forward(self, sequences):
        self.reset(self.network)
        return self.network(sequences.transpose(0, 1).contiguous()).mean(0)


def _lif(units):
    from spikingjelly.activation_based import neuron, surrogate

    function = surrogate.Sigmoid(ALPHA)
    return neuron.LIFNode(tau=1 / (1 - DECAY), decay_input=False, v_reset=None, surrogate_function=function, detach_reset=True)


def _recurrent(units):
    """Its synapse, from the input and the spikes, comes after a dense layer, so it does more than ours."""
    from spikingjelly.activation_based import layer

    return layer.LinearRecurrentContainer(_lif(units), units, units, bias=False)


def _sliding(units):
    from spikingjelly.activation_based import neuron, surrogate

    from recipes.benchmark.sequences import ORDER

    return neuron.SlidingPSN(ORDER, surrogate_function=surrogate.Sigmoid(ALPHA))


class SnnTorch(nn.Module):
    """A loop over time around the network, as is usual with this library; for its reset see `peers.SnnTorch`.

    Args: as in `SpikingJelly`.
    """

    def __init__(self, neurons, units, depth, classes):
        super().__init__()
        parts = [part for _ in range(depth) for part in (nn.Linear(units, units), neurons(units))]
        self.network = nn.Sequential(*parts, nn.Linear(units, classes))

    def forward(self, sequences):
        for neurons in self.network[1::2]:
            neurons.reset_mem()
        return sum(map(self.network, sequences.unbind(1))) / sequences.shape[1]


def _leaky(units):
    return _of_snntorch("Leaky")


def _rleaky(units):
    return _of_snntorch("RLeaky", linear_features=units)


def _of_snntorch(name, **arguments):
    import snntorch

    slope = snntorch.surrogate.sigmoid(slope=ALPHA)
    return getattr(snntorch, name)(beta=DECAY, spike_grad=slope, init_hidden=True, **arguments)


NETWORKS = {"spikingjelly": SpikingJelly, "snntorch": SnnTorch}
NEURONS = {
    "spikingjelly": {"LIF": _lif, "Recurrent": _recurrent, "SlidingPSN": _sliding},
    "snntorch": {"LIF": _leaky, "Recurrent": _rleaky},
}
"""The neurons of each case that a library has, by library."""
