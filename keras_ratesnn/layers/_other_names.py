"""Translates names of other libraries, and of other neurons: those of arguments,
attributes and classes."""

import functools
from typing import Any

import keras

from keras_ratesnn._core import other_names


def advice_on_class(name: str, choices: list[str]) -> str:
    """The name here of a class of another library, or of one that is nearly one of
    `choices`; an empty string if not known."""
    similar = [choice for choice in choices if choice.lower() == name.lower()]
    if name in _CLASSES or similar:
        return f" Use {_CLASSES.get(name) or similar[0]}, of keras_ratesnn.layers."
    return (
        f" It is a layer of Keras, keras.layers.{name}."
        if hasattr(keras.layers, name)
        else ""
    )


def advice_on_reset(value: Any) -> str:
    """The name here of a value of `reset`, or of `reset_mechanism` in snnTorch; an
    empty string if that is not known."""
    return {
        "subtract": 'To subtract the threshold from the membrane is reset="soft".',
        "zero": 'To set the membrane to v_reset, 0 by default, is reset="hard".',
        "none": "Neurons without a reset are layers such as LeakyReadout, which do not "
        "spike either.",
    }.get(value if isinstance(value, str) else "", "")


_CLASSES = {
    "Leaky": "LIF(decay=beta, reset_delay=True)",
    "RLeaky": "Recurrent(LIF(decay=beta, reset_delay=True), keras.layers.Dense(units))",
    "Synaptic": "CuBaLIF(decay=beta, synaptic_decay=alpha, reset_delay=True)",
    "RSynaptic": "Recurrent(CuBaLIF(decay=beta, synaptic_decay=alpha, "
    "reset_delay=True), keras.layers.Dense(units))",
    "Lapicque": "a keras.layers.Rescaling(time_step / C), then LIF(decay=1 − time_step "
    "/ (R · C), reset_delay=True)",
    "LIFNode": 'LIF(decay=1 − 1/tau, decay_input=True, reset="hard")',
    "IFNode": 'IF(reset="hard")',
    "ParametricLIFNode": "ParametricLIF(decay=1 − 1/init_tau, decay_input=True, "
    'reset="hard")',
    "PLIF": "ParametricLIF",
    "CUBALIFNode": "CuBaLIF(decay=v_decay, threshold=0.5, synaptic_decay=c_decay, "
    'reset="hard")',
    "ILIFNode": "ILIF(levels=4, decay=1 − 1/tau, normalize=False)",
    "NonSpikingLIFNode": "LeakyReadout(decay=1 − 1/tau, decay_input=True)",
    "NonSpikingIFNode": "LeakyReadout(decay=1.0)",
    "LI": "LeakyReadout",
    "PoissonEncoder": "BernoulliEncoder",
}
"""Layers of snnTorch, SpikingJelly, Norse and spyx, and what they are here; see
docs/migrate."""

_REMEDIES = {
    ("tau", "tau_m", "tau_mem", "init_tau"): (
        "A time constant of τ time steps is decay = 1 − 1/τ{example}. If the input is "
        "scaled by 1/τ, too, as in SpikingJelly unless decay_input=False, pass "
        "decay_input=True. ParametricLIF(decay=...) learns the decay from this value."
    ),
    ("beta", "leak"): (
        "The fraction of the membrane that remains after one step is decay={value!r}; "
        "a layer without a leak is IF()."
    ),
    ("learn_beta",): (
        "Use learn_decay={value!r} of neurons with a leak, or "
        "ParametricLIF(decay=...), which learns its decay from this value, or leave "
        "the argument out."
    ),
    (
        "learn_alpha",
    ): "Use learn_synaptic_decay={value!r}, of CuBaLIF and LeakyReadout.",
    ("learn_decay", "learn_synaptic_decay"): (
        "Layers with a leak such as LIF learn their decay, ParametricLIF always does; "
        "CuBaLIF and LeakyReadout that of their current, too. Leave the argument out."
    ),
    ("decay_input",): (
        "Only neurons with a leak scale their input by 1 − decay, such as LIF. Leave "
        "the argument out."
    ),
    ("reset_delay",): (
        "Only some neurons can delay their reset, such as LIF. Leave the argument out: "
        "a spike resets at once."
    ),
    ("step_mode",): (
        "The model runs its neurons over time: SpikingModel(network, timesteps, "
        'step_mode="multi") or "single".'
    ),
    ("backend",): (
        "Keras' backend runs all layers: set the environment variable KERAS_BACKEND "
        "before Keras is imported. compile(jit_compile=True) compiles a model."
    ),
    ("alpha",): (
        "The steepness of a surrogate is an argument of the surrogate, for example "
        "surrogate=keras_ratesnn.surrogates.ATan(alpha={value!r}). The fraction of the "
        "membrane that remains after one step is decay=. For a synaptic current use "
        "CuBaLIF(synaptic_decay=...)."
    ),
    ("num_steps", "T", "timesteps", "time_steps"): (
        "The model runs its neurons over time: SpikingModel(network, "
        "timesteps={value!r})."
    ),
    ("return_membrane", "return_mem", "return_state", "store_v_seq", "output"): (
        "keras_ratesnn.analysis.observed(model, membranes=[name]) gives the membranes "
        "of a layer beside the outputs. A last layer that gives its membrane instead "
        "of spikes is LeakyReadout."
    ),
    ("return_sequences",): (
        "A layer of neurons gives the spikes of each step. SpikingModel(network, "
        "timesteps, return_sequences=True) has the outputs of each step."
    ),
    (
        "init_hidden",
    ): "Neurons keep their state from step to step by themselves. Leave the argument "
    "out.",
    (
        "hard_reset",
    ): 'Use reset="hard", which sets the membrane to v_reset, or reset="soft", which '
    "subtracts the threshold.",
    (
        "units",
    ): "Neurons follow the shape of their input: put a keras.layers.Dense({value!r}) "
    "before them.",
    ("v_threshold", "v_th", "vth", "thresh"): "Use threshold={value!r}.",
    ("reset_mechanism",): (
        'Use reset="soft", which subtracts the threshold from the membrane, or '
        'reset="hard", which sets it to v_reset.'
    ),
    ("surrogate_function", "spike_grad"): (
        'Use surrogate="atan", or another name or object of keras_ratesnn.surrogates.'
    ),
    ("threshold_stabilizer",): (
        "Only the layer LIF can stabilise its thresholds: use "
        "LIF(threshold_stabilizer=True), with any decay, or leave the argument out."
    ),
    ("reset", "v_reset"): (
        "Neurons of integer spikes have a soft reset: it subtracts the threshold times "
        "the number of spikes from the membrane. Leave the argument out. "
        'LIF(reset="hard") has spikes of 0 and 1.'
    ),
    ("surrogate",): (
        "The derivative of integer spikes is that of the clipping: 1/threshold where "
        "the membrane is between 0 and levels · threshold. Leave the argument out."
    ),
    ("learn_threshold",): (
        "Put a BatchNormalization before the neurons, whose gamma learns the scale, or "
        "leave the argument out."
    ),
}
"""Names here, by names that mean the same."""

OTHER_NAMES = {name: remedy for names, remedy in _REMEDIES.items() for name in names}

refuse_other_names = functools.partial(other_names.refuse_other_names, OTHER_NAMES)
"""Raises TypeError if a neuron, the name of whose class is given, gets an argument name
of another library or neuron."""
