"""Names of training methods on command lines: rate-multi, rate-multi-2, sltt-single-2,
bptt-recompute, ottt, os.

A name consists of a gradient, a step mode and optionally a number: of time windows, or
of random steps. Instead of a number there may be the sizes of windows, rate-multi-1+3.
`PRESETS` are named combinations. A gradient of one's own is package.module:Class, as in
my_methods:HalfGradient-multi.
"""

import importlib

import keras

from keras_ratesnn import gradients
from keras_ratesnn.gradients.lookup import BY_NAME
from keras_ratesnn.spiking_model import STEP_MODES
from recipes import checks

PLAIN = tuple(
    f"{gradient}-{step_mode}" for gradient in BY_NAME for step_mode in STEP_MODES
)

PRESETS = {
    "bptt-recompute": {"gradient": "bptt", "step_mode": "multi", "recompute": True},
    "ottt": {"gradient": "ottt", "step_mode": "single", "normalization": "weight"},
    "os": {"gradient": "sltt", "step_mode": "single", "normalization": "online"},
}
"""Settings of methods whose names say more than a gradient, a step mode and a number:
the authors of two use another normalisation."""

COUNTED = {"rate": "windows", "sltt": "random_steps"}
"""The meaning of a number for each gradient."""

ARGUMENTS = {**COUNTED, "bptt": "recompute"}
"""For each gradient a recipe setting that is an argument of its class."""

NUMBERS = (
    "`methods` may end in a number of time windows, like rate-multi-2, in their "
    "sizes, like rate-multi-1+3, or in a number of random steps, like sltt-single-2."
)


def settings_of(name, further_names=()):
    """The recipe settings for a method's name, a dictionary; raises ValueError if there
    is no such method.

    Args:
        name: String.
        further_names: Names that the caller accepts, too, for the error message.
            Defaults to `()`.
    """
    if name in PRESETS:
        return PRESETS[name]
    if ":" in name:
        gradient, _, step_mode = name.rpartition("-")
        if step_mode not in STEP_MODES:
            raise ValueError(
                "`methods` must end in -multi or -single after a class of your own. "
                f"Received: {name!r}."
            )
        return {"gradient": gradient, "step_mode": step_mode}
    plain, number = name, None
    if name.count("-") >= 2:
        plain, _, number = name.rpartition("-")
    try:
        checks.one_of("methods", plain, (*PLAIN, *PRESETS, *further_names))
    except ValueError as error:
        raise ValueError(f"{error} {NUMBERS}") from None
    gradient, step_mode = plain.split("-")
    settings = {"gradient": gradient, "step_mode": step_mode}
    if number is None:
        return settings
    counts = number.split("+")
    has_sizes = len(counts) > 1
    are_numbers = all(map(str.isdecimal, counts))
    if gradient not in COUNTED or not are_numbers or (gradient != "rate" and has_sizes):
        raise ValueError(f"{NUMBERS} Received: {name!r}.")
    value = tuple(map(int, counts)) if has_sizes else int(number)
    return {**settings, COUNTED[gradient]: value}


def assignments(name, further_names=()):
    """The recipe settings for a method's name as strings `key=value`, as in `--set`;
    for `further_names` see `settings_of`."""
    return [f"{key}={value}" for key, value in settings_of(name, further_names).items()]


def gradient_name(settings, space):
    """The gradient of a run's settings with its windows or random steps, like "rate 2
    windows" if `space` is " "."""
    parts = [settings["gradient"]]
    windows = settings.get("windows", 1)
    if windows != 1:
        sizes = windows if isinstance(windows, (list, tuple)) else [windows]
        parts += ["+".join(map(str, sizes)), "windows"]
    if settings.get("random_steps"):
        parts += [str(settings["random_steps"]), "random", "steps"]
    if settings.get("recompute"):
        parts += ["recomputed"]
    return space.join(parts)


def legend(gradient, step_mode):
    """A method in words, for figures: "rate, 2 windows, multi-step" for "rate 2
    windows" and "multi"."""
    name, *rest = gradient.split(" ", 1)
    if name in BY_NAME and name != "rate":
        name = name.upper()
    return ", ".join([name, *rest, f"{step_mode}-step"])


def in_words(name):
    """The `legend` for the name of a method; other names, such as those of peers and of
    presets, stay as they are."""
    try:
        settings = settings_of(name)
    except ValueError:
        return name
    if "normalization" in settings:
        return name.upper()
    return legend(gradient_name(settings, " "), settings["step_mode"])


def set_by_methods(assignments):
    """Settings that `catalogue.chosen` refuses because methods set them.

    Args:
        assignments: Dictionary from methods to their settings, strings `key=value`.
    """
    names = [
        setting.partition("=")[0] for own in assignments.values() for setting in own
    ]
    return dict.fromkeys(names, "Name the method with --methods.")


def gradient_method(settings):
    """The `keras_ratesnn.gradients.GradientMethod` of a recipe's settings, a
    dictionary: of `gradient` and `ARGUMENTS`.

    Raises:
        ValueError: If there is no such gradient.
        TypeError: If a class of one's own is no gradient, or cannot be made without
            arguments.
    """
    gradient = settings["gradient"]
    if isinstance(gradient, str) and ":" in gradient:
        return _own_method(gradient)
    checks.one_of("gradient", gradient, (*BY_NAME, "package.module:Class"))
    argument = ARGUMENTS.get(gradient)
    options = {argument: settings[argument]} if argument in settings else {}
    return BY_NAME[gradient](**options)


def _own_method(name):
    """The gradient of a name `package.module:Class`."""

    def mistake(must, remedy="", kind=TypeError):
        return checks.mistake("gradient", must, name, remedy, kind)

    module, _, class_name = name.partition(":")
    try:
        kind = getattr(importlib.import_module(module), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        must = (
            "a class that can be imported, package.module:Class, from the current "
            "folder or an installed package"
        )
        remedy = f"{type(error).__name__}: {error}."
        raise mistake(must, remedy, ValueError) from error
    if not (isinstance(kind, type) and issubclass(kind, gradients.GradientMethod)):
        raise mistake("a subclass of keras_ratesnn.gradients.GradientMethod")
    registered = keras.saving.get_registered_name(kind)
    if keras.saving.get_registered_object(registered) is not kind:
        decorator = '@keras.saving.register_keras_serializable(package="...")'
        raise mistake("a class that Keras can save", f"Decorate it with {decorator}.")
    try:
        return kind()
    except TypeError as error:
        remedy = f"{error}. Give its arguments defaults, or name a subclass that does."
        raise mistake("a class that is made without arguments", remedy) from error


def name_of(method):
    """The name of a `keras_ratesnn.gradients.GradientMethod` in the settings of a
    recipe."""
    kind = type(method)
    for name, known in BY_NAME.items():
        if known is kind:
            return name
    return f"{kind.__module__}:{kind.__qualname__}"
