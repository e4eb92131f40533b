"""Arguments of neurons as other libraries name them: what they are called here."""

import numbers
from typing import Any

from keras_ratesnn._core.annotations import Config


def refuse_other_names(neuron: str, arguments: Config) -> None:
    """Raises TypeError if a neuron is given an argument that other libraries name so, and says what it is here.

    Args:
        neuron: String, the name of the class.
        arguments: Dict, the keyword arguments that it does not know.
    """
    for name, value in arguments.items():
        if name in _OTHER_NAMES:
            raise TypeError(f"{neuron} has no argument `{name}`. Received: {name}={value!r}. {_OTHER_NAMES[name](value)}")


def _time_constant(value: Any) -> str:
    number = isinstance(value, numbers.Real) and not isinstance(value, bool) and value >= 1  # type: ignore[operator]
    example = f": here decay={round(1 - 1 / value, 6)}" if number else ""
    return f"A time constant of τ time steps is decay = 1 − 1/τ{example}. ParametricLIF(decay=...) learns it from there on."


def _decay(value: Any) -> str:
    return f"What is left of the membrane after one step is decay={value!r}; without a leak the layer is IF()."


def _alpha(value: Any) -> str:
    return (
        "The steepness of a surrogate is an argument of the surrogate, as in "
        f"surrogate=keras_ratesnn.surrogates.ATan(alpha={value!r}); what is left of the membrane after one step is decay=. "
        "These neurons have no synaptic current of its own; a NeuronCell of yours can."
    )


def _threshold(value: Any) -> str:
    return f"Write threshold={value!r}."


def _reset(value: Any) -> str:
    return 'Write reset="soft", which takes one threshold off the membrane, or reset="hard", which sets it to v_reset.'


def _surrogate(value: Any) -> str:
    return 'Write surrogate="atan" or another name or object of keras_ratesnn.surrogates.'


_OTHER_NAMES = {
    "tau": _time_constant,
    "tau_m": _time_constant,
    "tau_mem": _time_constant,
    "init_tau": _time_constant,
    "beta": _decay,
    "leak": _decay,
    "alpha": _alpha,
    "v_threshold": _threshold,
    "v_th": _threshold,
    "thresh": _threshold,
    "reset_mechanism": _reset,
    "surrogate_function": _surrogate,
    "spike_grad": _surrogate,
}
