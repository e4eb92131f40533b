r"""Neurons in continuous time, as NIR has them, and in time steps.

NIR's equation of a leaky neuron, with the time constant τ, the resistance R and the
resting membrane v_leak, is

    τ dv/dt = (v_leak − v) + R I

A step of length dt by Euler's method is v ← λ v + (1 − λ) v_leak + g I with the decay
and the gain

    λ = 1 − dt/τ          g = R dt/τ

A neuron without leak, dv/dt = R I, has λ = 1 and g = R dt. The synaptic current of
`CubaLIF`, τ_syn di/dt = −i + w_in I, has the decay 1 − dt/τ_syn and the gain
w_in dt/τ_syn. Neurons of this library have gains of 1 and rest at 0: R = τ/dt,
v_leak = 0.

Other gains and resting membranes are another unit of the membrane: u = (v − v_leak) / g
follows u ← λ u + I and spikes at the threshold (θ − v_leak) / g.

A neuron in NIR spikes if v > v_threshold, here it spikes if v >= threshold. In the
floating-point numbers of a membrane the two are the same if v_threshold is the number
next below the threshold.

A readout, `LI`, has the same equation and no threshold; where its gain or resting
membrane differs, its output is scaled back.

Source: Pedersen et al., "Neuromorphic intermediate representation: A unified
instruction set for interoperable brain-inspired computing", Nature Communications 2024.
"""

import numpy as np

DT = 1e-4
"""The length of a time step in seconds that other libraries assume, too."""

_ALIKE = 1e-6
"""Gains and decays closer than this to 1 and 0 are these numbers: what is missing is
rounding."""


def time_constant(decay, dt):
    """τ of a decay, in seconds."""
    return dt / (1.0 - np.asarray(decay, "float64"))


def decay_of(tau, dt):
    """λ of a time constant; an array."""
    decay = 1.0 - dt / np.asarray(tau, "float64")
    return np.where(np.abs(decay) < _ALIKE, 0.0, decay)


def gain_of(resistance, tau, dt):
    """g of a resistance and a time constant; `None` as the time constant of a neuron
    without leak."""
    gain = np.asarray(resistance, "float64") * dt
    if tau is not None:
        gain = gain / np.asarray(tau, "float64")
    return np.where(np.abs(gain - 1.0) < _ALIKE, 1.0, gain)


def threshold_to_nir(threshold, dtype):
    """The `v_threshold` above which a membrane of this dtype is if, and only if, it has
    reached the threshold."""
    number = np.dtype(dtype).type
    return np.nextafter(np.asarray(threshold, dtype), number(-np.inf)).astype("float64")


def threshold_from_nir(v_threshold, dtype):
    """The smallest number of this dtype above `v_threshold`."""
    number = np.dtype(dtype).type
    nearest = np.asarray(v_threshold, dtype)
    return shortest(
        np.where(nearest > v_threshold, nearest, np.nextafter(nearest, number(np.inf))),
        dtype,
    )


def shortest(value, dtype):
    """The numbers with the fewest digits that are the same in a dtype: 0.9 for
    0.8999999761581421 in float32."""
    number = np.dtype(dtype).type
    return np.vectorize(lambda entry: float(str(number(entry))), otypes=["float64"])(
        value
    )[()]
