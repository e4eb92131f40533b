"""Shared by the online methods, which have no gradient between time steps."""

from keras_ratesnn._core import backend
from keras_ratesnn.gradients.handlers import stopped
from keras_ratesnn.gradients.network import Network, in_time, plain, plain_nodes
from keras_ratesnn.gradients.recomputation import recomputed


def run_online(run, recompute, nodes=plain_nodes, chosen=None):
    """The outputs of a run whose steps are differentiated one by one.

    Args:
        run: `Run`.
        recompute: Boolean, whether single-step mode recomputes each step for its backward pass and stores none.
        nodes: See `Network`; other nodes than the plain ones put tensors in the place of weights.
        chosen: See `Context`.
    """
    if not run.with_gradient:
        return plain(run)
    recompute = recompute and run.step_mode == "single"
    if (recompute or nodes is not plain_nodes) and backend.loses_replaced_weights(run.network):
        raise ValueError(
            "TensorFlow loses the gradients of layers made in a keras.RematScope where a training method puts tensors in the "
            f"place of weights. Received: network {run.network.name!r} with such layers. Make it outside of the scope: "
            "single-step mode keeps the activations of one step alone."
        )
    if recompute:
        return recomputed(run, nodes, {"between": stopped, "chosen": chosen})
    return in_time(Network(run, nodes, between=stopped, chosen=chosen))


def check_steps_are_separate(name, neurons):
    """Raises ValueError if a spike of one of these neuron layers depends on inputs of later steps.

    Args:
        name: String, the name of the method.
        neurons: List of `keras_ratesnn.layers.Neuron`.
    """
    for neuron in neurons:
        if neuron.cell.sees_all_steps:
            raise ValueError(
                f'gradient="{name}" differentiates each time step by itself. Received: layer {neuron.name!r} of type '
                f"{type(neuron).__name__}, whose spikes depend on inputs of all steps, and which has no state. Train with "
                'gradient="bptt" or "rate".'
            )
