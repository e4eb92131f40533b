"""Translates argument names of other libraries, and of other neurons, to those of a neuron."""

import numbers
from typing import Any

from keras_ratesnn._core.annotations import Config


def refuse_other_names(neuron: str, arguments: Config) -> None:
    """Raises TypeError if a neuron gets an argument name of another library or neuron, and says what to use.

    Args:
        neuron: String, the name of the class.
        arguments: Dict, the unknown keyword arguments.
    """
    for name, value in arguments.items():
        if name in _OTHER_NAMES:
            raise TypeError(f"{neuron} has no argument `{name}`. Received: {name}={value!r}. {_OTHER_NAMES[name](value)}")


def _time_constant(value: Any) -> str:
    number = isinstance(value, numbers.Real) and not isinstance(value, bool) and value >= 1  # type: ignore[operator]
    example = f": here decay={round(1 - 1 / value, 6)}" if number else ""
    return (
        f"A time constant of τ time steps is decay = 1 − 1/τ{example}. If the input is scaled by 1/τ, too, as in SpikingJelly "
        "unless decay_input=False, pass decay_input=True. ParametricLIF(decay=...) learns the decay from this value."
    )


def _decay(value: Any) -> str:
    return f"The fraction of the membrane that remains after one step is decay={value!r}; a layer without a leak is IF()."


def _learned_decay(value: Any) -> str:
    return "Use ParametricLIF(decay=...), which learns its decay from this value, or leave the argument out."


def _decay_input(value: Any) -> str:
    return "Only neurons with a leak scale their input by 1 − decay: LIF, ParametricLIF, ALIF, CuBaLIF. Leave the argument out."


def _reset_delay(value: Any) -> str:
    return "Only LIF, IF, ParametricLIF and CuBaLIF can delay their reset. Leave the argument out: a spike resets at once."


def _step_mode(value: Any) -> str:
    return 'The model runs its neurons over time: SpikingModel(network, timesteps, step_mode="multi") or "single".'


def _backend(value: Any) -> str:
    return (
        "Keras' backend runs all layers: set the environment variable KERAS_BACKEND before Keras is imported. "
        "compile(jit_compile=True) compiles a model."
    )


def _alpha(value: Any) -> str:
    return (
        "The steepness of a surrogate is an argument of the surrogate, for example "
        f"surrogate=keras_ratesnn.surrogates.ATan(alpha={value!r}). The fraction of the membrane that remains after one step "
        "is decay=. For a synaptic current use CuBaLIF(synaptic_decay=...)."
    )


def _threshold(value: Any) -> str:
    return f"Use threshold={value!r}."


def _reset(value: Any) -> str:
    return 'Use reset="soft", which subtracts the threshold from the membrane, or reset="hard", which sets it to v_reset.'


def _surrogate(value: Any) -> str:
    return 'Use surrogate="atan", or another name or object of keras_ratesnn.surrogates.'


def _integer_reset(value: Any) -> str:
    return (
        "Neurons of integer spikes have a soft reset: it subtracts the threshold times the number of spikes from the membrane. "
        'Leave the argument out. LIF(reset="hard") has spikes of 0 and 1.'
    )


def _integer_surrogate(value: Any) -> str:
    return (
        "The derivative of integer spikes is that of the clipping: 1/threshold where the membrane is between 0 and "
        "levels · threshold. Leave the argument out."
    )


def _learn_threshold(value: Any) -> str:
    return "Put a BatchNormalization before the neurons, whose gamma learns the scale, or leave the argument out."


def _threshold_stabilizer(value: Any) -> str:
    return (
        "Only the layer LIF can stabilise its thresholds: use LIF(threshold_stabilizer=True), with any decay, or leave the "
        "argument out."
    )


_OTHER_NAMES = {
    "tau": _time_constant,
    "tau_m": _time_constant,
    "tau_mem": _time_constant,
    "init_tau": _time_constant,
    "beta": _decay,
    "leak": _decay,
    "learn_beta": _learned_decay,
    "decay_input": _decay_input,
    "reset_delay": _reset_delay,
    "step_mode": _step_mode,
    "backend": _backend,
    "alpha": _alpha,
    "v_threshold": _threshold,
    "v_th": _threshold,
    "thresh": _threshold,
    "reset_mechanism": _reset,
    "surrogate_function": _surrogate,
    "spike_grad": _surrogate,
    "threshold_stabilizer": _threshold_stabilizer,
    "reset": _integer_reset,
    "v_reset": _integer_reset,
    "surrogate": _integer_surrogate,
    "learn_threshold": _learn_threshold,
}
