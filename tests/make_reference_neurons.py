"""Creates the cases in `reference_neurons`: neurons of other libraries, their spikes at
every step and their BPTT gradients.

Run by hand, in the root of the repository, with snnTorch and Sinabs installed (the
existing cases were created with snnTorch 1.0.0 and Sinabs 3.1.3):

    python -m pip install torch snntorch sinabs
    python tests/make_reference_neurons.py

`cuba_*` are snnTorch's `Synaptic` with `reset_delay=False`. Its reset is not detached.
Its soft reset also counts neurons as spiking that are still above the threshold after
it; inputs are small enough to avoid this.

`alif_*` are Sinabs' `ALIF` with `norm_input=False`. By default its spikes have no
derivative with respect to the threshold; here they get one, and a detached reset,
through the spike and reset functions that Sinabs' layers accept.

The surrogate is α σ(αu) (1 − σ(αu)) with α = 4 in all cases. Gradients are those
of Σ_t (spikes_t · weights_t) with respect to the inputs.
"""

import pathlib

import numpy as np
import sinabs.activation
import sinabs.layers
import snntorch
import torch

FOLDER = pathlib.Path(__file__).parent / "reference_neurons"
TIMESTEPS, BATCH, FEATURES = 12, 4, 8
CUBA = {"decay": 0.7, "synaptic_decay": 0.4, "threshold": 0.9}
ALIF = {"decay": 0.6, "adaptation_decay": 0.8, "adaptation": 1.8, "threshold": 0.5}


def surrogate_derivative(distance):
    sigmoid = torch.sigmoid(4.0 * distance)
    return 4.0 * sigmoid * (1.0 - sigmoid)


class Spikes(torch.autograd.Function):
    """H(v − θ), differentiated with respect to both, as a spike function for Sinabs."""

    required_states = ("v_mem",)

    @staticmethod
    def forward(ctx, membrane, threshold, _):
        ctx.save_for_backward(membrane - threshold)
        return (membrane - threshold >= 0).to(membrane.dtype)

    @staticmethod
    def backward(ctx, upstream):
        of_membrane = upstream * surrogate_derivative(ctx.saved_tensors[0])
        return of_membrane, -of_membrane, None


class SnnTorchSpikes(torch.autograd.Function):
    """H(u) of snnTorch, 1 above the threshold, with the same surrogate derivative."""

    @staticmethod
    def forward(ctx, distance):
        ctx.save_for_backward(distance)
        return (distance > 0).to(distance.dtype)

    @staticmethod
    def backward(ctx, upstream):
        return upstream * surrogate_derivative(ctx.saved_tensors[0])


def detached(reset):
    return lambda spikes, state, threshold: reset(spikes.detach(), state, threshold)


def cuba(inputs, reset):
    neurons = snntorch.Synaptic(
        alpha=CUBA["synaptic_decay"],
        beta=CUBA["decay"],
        threshold=CUBA["threshold"],
        spike_grad=SnnTorchSpikes.apply,
        reset_mechanism=reset,
        reset_delay=False,
    ).double()
    current, membrane, steps = (
        torch.zeros_like(inputs[:, 0]),
        torch.zeros_like(inputs[:, 0]),
        [],
    )
    for t in range(TIMESTEPS):
        spikes, current, membrane = neurons(inputs[:, t], current, membrane)
        assert reset == "zero" or (membrane <= CUBA["threshold"]).all()
        steps.append(spikes)
    return torch.stack(steps, dim=1)


def alif(inputs, reset):
    def time_constant(decay):
        return -1.0 / torch.log(torch.tensor(decay, dtype=torch.float64))

    neurons = sinabs.layers.ALIF(
        tau_mem=time_constant(ALIF["decay"]),
        tau_adapt=time_constant(ALIF["adaptation_decay"]),
        adapt_scale=ALIF["adaptation"],
        spike_threshold=torch.tensor(ALIF["threshold"], dtype=torch.float64),
        spike_fn=Spikes,
        reset_fn=reset,
        norm_input=False,
    ).double()
    return neurons(inputs)


CASES = {
    "cuba_soft_attached": (
        cuba,
        "subtract",
        {**CUBA, "reset": "soft", "detach_reset": False},
    ),
    "cuba_hard_attached": (
        cuba,
        "zero",
        {**CUBA, "reset": "hard", "detach_reset": False},
    ),
    "alif_soft_attached": (
        alif,
        sinabs.activation.MembraneSubtract(),
        {**ALIF, "reset": "soft", "detach_reset": False},
    ),
    "alif_soft_detached": (
        alif,
        detached(sinabs.activation.MembraneSubtract()),
        {**ALIF, "reset": "soft"},
    ),
    "alif_hard_detached": (
        alif,
        detached(sinabs.activation.MembraneReset()),
        {**ALIF, "reset": "hard"},
    ),
}


def main():
    FOLDER.mkdir(exist_ok=True)
    for index, (name, (function, reset, arguments)) in enumerate(CASES.items()):
        random = np.random.default_rng(index)
        inputs = random.uniform(-0.2, 0.7, (BATCH, TIMESTEPS, FEATURES)).astype(
            "float32"
        )
        weights = random.normal(size=inputs.shape).astype("float32")
        given = torch.tensor(inputs, dtype=torch.float64, requires_grad=True)
        spikes = function(given, reset)
        (gradient,) = torch.autograd.grad((spikes * torch.tensor(weights)).sum(), given)
        print(f"{name}: {spikes.mean():.2f} of all steps have a spike")
        arrays = {
            "inputs": inputs,
            "weights": weights,
            "spikes": spikes.detach().numpy(),
            "gradient": gradient.numpy(),
        }
        np.savez_compressed(FOLDER / f"{name}.npz", **arrays, **arguments)


if __name__ == "__main__":
    main()
