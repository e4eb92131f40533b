"""Creates the cases in `reference_neurons`: ALIF neurons of Sinabs, their spikes at
every step and their BPTT gradients.

Run by hand, in the root of the repository, with Sinabs installed (the existing cases
were created with Sinabs 3.1.3):

    python -m pip install torch sinabs
    python tests/make_reference_neurons.py

They are Sinabs' `ALIF` with `norm_input=False`. By default its spikes have no
derivative with respect to the threshold; here they get one, and a detached reset,
through the spike and reset functions that Sinabs' layers accept.

The surrogate is α σ(αu) (1 − σ(αu)) with α = 4 in all cases. Gradients are those
of Σ_t (spikes_t · weights_t) with respect to the inputs.
"""

import pathlib

import numpy as np
import sinabs.activation
import sinabs.layers
import torch

FOLDER = pathlib.Path(__file__).parent / "reference_neurons"
TIMESTEPS, BATCH, FEATURES = 12, 4, 8
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


def detached(reset):
    return lambda spikes, state, threshold: reset(spikes.detach(), state, threshold)


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
    "alif_soft_attached": (
        sinabs.activation.MembraneSubtract(),
        {**ALIF, "reset": "soft", "detach_reset": False},
    ),
    "alif_soft_detached": (
        detached(sinabs.activation.MembraneSubtract()),
        {**ALIF, "reset": "soft"},
    ),
    "alif_hard_detached": (
        detached(sinabs.activation.MembraneReset()),
        {**ALIF, "reset": "hard"},
    ),
}
SEEDS = 2, 3, 4


def main():
    FOLDER.mkdir(exist_ok=True)
    for seed, name in zip(SEEDS, CASES, strict=True):
        reset, arguments = CASES[name]
        random = np.random.default_rng(seed)
        inputs = random.uniform(-0.2, 0.7, (BATCH, TIMESTEPS, FEATURES)).astype(
            "float32"
        )
        weights = random.normal(size=inputs.shape).astype("float32")
        given = torch.tensor(inputs, dtype=torch.float64, requires_grad=True)
        spikes = alif(given, reset)
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
