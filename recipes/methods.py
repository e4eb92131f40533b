"""Names of training methods on command lines: rate-multi, rate-multi-2, sltt-single-2, ottt, os.

A name consists of a gradient, a step mode and optionally a number: of time windows, or of random steps. `PRESETS` are named
combinations.
"""

from keras_ratesnn import gradients
from keras_ratesnn.spiking_model import STEP_MODES
from recipes import checks

PLAIN = tuple(f"{gradient}-{step_mode}" for gradient in gradients.BY_NAME for step_mode in STEP_MODES)

PRESETS = {
    "ottt": {"gradient": "ottt", "step_mode": "single", "normalization": "weight"},
    "os": {"gradient": "sltt", "step_mode": "single", "normalization": "online"},
}
"""Settings of methods whose authors use another normalisation."""

COUNTED = {"rate": "windows", "sltt": "random_steps"}
"""The meaning of a number for each gradient: a recipe setting, and an argument of the gradient's class."""

NUMBERS = "`methods` may end in a number of time windows, like rate-multi-2, or of random steps, like sltt-single-2."


def settings_of(name, others=()):
    """The recipe settings for a method's name, a dictionary; raises ValueError if there is no such method.

    Args:
        name: String.
        others: Further names that the caller accepts, for the error message. Defaults to `()`.
    """
    if name in PRESETS:
        return PRESETS[name]
    plain, number = name, None
    if name.count("-") == 2:
        plain, _, number = name.rpartition("-")
    try:
        checks.one_of("methods", plain, (*PLAIN, *PRESETS, *others))
    except ValueError as error:
        raise ValueError(f"{error} {NUMBERS}") from None
    gradient, step_mode = plain.split("-")
    settings = {"gradient": gradient, "step_mode": step_mode}
    if number is None:
        return settings
    if gradient not in COUNTED or not number.isdecimal():
        raise ValueError(f"{NUMBERS} Received: {name!r}.")
    return {**settings, COUNTED[gradient]: int(number)}


def assignments(name):
    """The recipe settings for a method's name as strings `key=value`, as in `--set`."""
    return [f"{key}={value}" for key, value in settings_of(name).items()]


def gradient_name(settings, space):
    """The gradient of a run's settings with its windows or random steps, like "rate 2 windows" if `space` is " "."""
    parts = [settings["gradient"]]
    windows = settings.get("windows", 1)
    if windows != 1:
        parts += ["+".join(map(str, windows)) if isinstance(windows, (list, tuple)) else str(windows), "windows"]
    if settings.get("random_steps"):
        parts += [str(settings["random_steps"]), "random", "steps"]
    return space.join(parts)


def legend(gradient, step_mode):
    """A method in words, for figures: "rate, 2 windows, multi-step" for "rate 2 windows" and "multi"."""
    first, *rest = gradient.split(" ", 1)
    return ", ".join([first if first == "rate" else first.upper(), *rest, f"{step_mode}-step"])


def in_words(name):
    """The `legend` for the name of a method; other names, such as those of peers and of presets, stay as they are."""
    if name in PRESETS:
        return name.upper()
    try:
        settings = settings_of(name)
    except ValueError:
        return name
    return legend(gradient_name(settings, " "), settings["step_mode"])


def in_place_of_set(names):
    """The recipe settings that these methods set, with a sentence each that names `--methods`, for `catalogue.chosen`."""
    return {setting: "Name the method with --methods." for name in names for setting in settings_of(name)}


def gradient_method(settings):
    """The `keras_ratesnn.gradients.GradientMethod` of a recipe's settings, a dictionary: of `gradient` and what it counts.

    Raises:
        ValueError: If there is no such gradient.
    """
    gradient = settings["gradient"]
    checks.one_of("gradient", gradient, gradients.BY_NAME)
    own = COUNTED.get(gradient)
    return gradients.BY_NAME[gradient](**({own: settings[own]} if own in settings else {}))
