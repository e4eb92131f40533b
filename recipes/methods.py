"""Training methods by the names that command lines take: rate-multi, rate-multi-2, sltt-single-2, ottt, os.

A name is that of a gradient, of a step mode, and a number for what of the gradient can be counted: windows of time, or random
steps. `PRESETS` have names of their own.
"""

from keras_ratesnn import gradients
from keras_ratesnn._core import checks
from keras_ratesnn.spiking_model import STEP_MODES

PLAIN = tuple(f"{gradient}-{step_mode}" for gradient in gradients.BY_NAME for step_mode in STEP_MODES)

PRESETS = {
    "ottt": {"gradient": "ottt", "step_mode": "single", "normalization": "weight"},
    "os": {"gradient": "sltt", "step_mode": "single", "normalization": "online"},
}
"""Methods that their authors train with networks of another normalisation: settings of a recipe."""

COUNTED = {"rate": "windows", "sltt": "random_steps"}
"""What a number stands for, by the name of the gradient: a setting of a recipe, and an argument of the gradient's class."""


def settings_of(name, others=()):
    """The settings of a recipe, a dictionary, that a method's name stands for; ValueError if there is no such method.

    Args:
        name: String.
        others: Names that the caller takes besides, for the error. Defaults to `()`.
    """
    if name in PRESETS:
        return PRESETS[name]
    plain, number = name, None
    if name.count("-") == 2:
        plain, _, number = name.rpartition("-")
    checks.one_of("methods", plain, (*PLAIN, *PRESETS, *others))
    gradient, step_mode = plain.split("-")
    settings = {"gradient": gradient, "step_mode": step_mode}
    if number is None:
        return settings
    if gradient not in COUNTED or not number.isdecimal():
        raise ValueError(
            "`methods` may end in a number of windows of time, as rate-multi-2, or of random steps, as sltt-single-2. "
            f"Received: {name!r}."
        )
    return {**settings, COUNTED[gradient]: int(number)}


def gradient_method(gradient, **counts):
    """The `keras_ratesnn.gradients.GradientMethod` of a recipe's settings.

    Args:
        gradient: String, its name.
        **counts: Values of the settings in `COUNTED`.

    Raises:
        ValueError: If the name is unknown, or what is counted is not of this gradient.
    """
    own = COUNTED.get(gradient)
    defaults = {"windows": 1, "random_steps": None}
    for setting, value in counts.items():
        if setting != own and value != defaults[setting]:
            owner = next(name for name, counted in COUNTED.items() if counted == setting)
            raise ValueError(
                f'`{setting}` are of gradient="{owner}". Received: {setting}={value} with gradient={gradient!r}. '
                "Leave one of the two out."
            )
    if own not in counts:
        return gradients.get(gradient)
    return gradients.BY_NAME[gradient](**{own: counts[own]})
