r"""Membrane equations of spiking neurons, as pure functions of tensors (or numbers).

With decay λ, threshold θ, input current I and surrogate derivative h (see
`surrogates`), one time step is

    v_t  = λ · v⁺_{t−1} + I_t
            `integrate`; with `decay_input` (1 − λ) I_t takes the place of I_t
    s_t  = H(v_t − θ),  H(0) = 1         `fire`
    v⁺_t = v_t − θ s_t                   `soft_reset`
    v⁺_t = v_t (1 − s_t) + v_reset s_t   `hard_reset`

A neuron that emits up to D spikes in a step rounds instead: s_t = round(clip(v_t/θ, 0,
D)), `fire_levels`.

A delayed reset acts in the step after the spike: the same functions, of λ v_{t−1} + I_t
and s_{t−1}, give v_t.

The derivative of the membrane with respect to a constant shift of the input is ρ_1 = 1,
ρ_{t+1} = 1 + ρ_t · ∂v_{t+1}/∂v_t. The `*_derivative` functions return ∂v⁺_t/∂v_t, so
that ∂v_{t+1}/∂v_t = λ · ∂v⁺_t/∂v_t.

Learned thresholds also need the direct derivative of the reset, ∂v⁺_t/∂θ at fixed
v_t. It is 1 − s_t − ∂v⁺_t/∂v_t: if membrane and threshold rise by the same amount, the
spikes stay, and v⁺_t rises by (1 − s_t) times that amount.

Source: Yu et al., "Advancing Training Efficiency of Deep Spiking Neural Networks
through Rate-based Backpropagation", NeurIPS 2024, sections 3 and 4; here the reset
derivatives hold for any θ and v_reset.
"""

from keras import ops

from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn._core.backend import engine


def integrate(
    membrane: Tensor, current: Tensor, decay: float | Tensor, decay_input: bool = False
) -> Tensor:
    """v_t = λ · v⁺_{t−1} + I_t, or λ · v⁺_{t−1} + (1 − λ) I_t with `decay_input`.
    Linear, so it also maps tangents."""
    if decay_input:
        current = (1.0 - decay) * current
    return engine.multiply_add(membrane, decay, current)


def fire(membrane: Tensor, threshold: float | Tensor) -> Tensor:
    """s_t = H(v_t − θ): exactly 0 or 1, 1 at the threshold itself."""
    return ops.cast(membrane >= threshold, membrane.dtype)


def fire_levels(
    membrane: Tensor, threshold: float, levels: int, round_half_up: bool = False
) -> Tensor:
    """s_t = round(clip(v_t/θ, 0, D)): an integer from 0 to D = `levels`; halves are
    rounded to the even integer, or up."""
    clipped = ops.clip(membrane / threshold, 0.0, float(levels))
    rounded = ops.round(clipped)
    if not round_half_up:
        return rounded
    # Not the floor of `clipped + 0.5`: on PyTorch, Keras takes it in float32.
    return rounded + ops.cast(clipped - rounded >= 0.5, rounded.dtype)


def fire_levels_derivative(membrane: Tensor, threshold: float, levels: int) -> Tensor:
    """The surrogate derivative of `fire_levels`: 1/θ where 0 <= v_t/θ <= D, else 0."""
    scaled = membrane / threshold
    # Closed: a current of exactly 0, which is common after products of spikes, has a
    # gradient.
    inside = ops.logical_and(scaled >= 0.0, scaled <= float(levels))
    return ops.cast(inside, membrane.dtype) / threshold


def soft_reset(membrane: Tensor, spikes: Tensor, threshold: float | Tensor) -> Tensor:
    """v⁺_t = v_t − θ s_t: a spike subtracts the threshold from the membrane."""
    return engine.multiply_add(spikes, -threshold, membrane)


def hard_reset(membrane: Tensor, spikes: Tensor, v_reset: float) -> Tensor:
    """v⁺_t = v_t (1 − s_t) + v_reset s_t: a spike sets the membrane to `v_reset`."""
    return membrane * (1.0 - spikes) + v_reset * spikes


def soft_reset_derivative(
    surrogate_derivative: Tensor, threshold: float | Tensor, detach_reset: bool
) -> float | Tensor:
    """∂v⁺_t/∂v_t of the soft reset: 1 if the reset is detached, else 1 − θ h(v_t −
    θ)."""
    return 1.0 if detach_reset else 1.0 - threshold * surrogate_derivative


def hard_reset_derivative(
    membrane: Tensor,
    spikes: Tensor,
    surrogate_derivative: Tensor,
    v_reset: float,
    detach_reset: bool,
) -> float | Tensor:
    """∂v⁺_t/∂v_t of the hard reset: 1 − s_t if it is detached, else (1 − s_t) +
    (v_reset − v_t) h(v_t − θ)."""
    if detach_reset:
        return 1.0 - spikes
    return (1.0 - spikes) + (v_reset - membrane) * surrogate_derivative
