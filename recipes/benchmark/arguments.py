"""The options of the benchmark's command lines: fields of `Settings`."""

import argparse

from recipes import command_line
from recipes.benchmark.settings import NETWORKS, PEERS, Settings
from recipes.methods import PLAIN, PRESETS

JIT_COMPILE = {"auto": "auto", "true": True, "false": False}
"""The values of `Settings.jit_compile` on command lines."""

OPTIONS = {
    "network": {"metavar": "NAME", "help": f"one of {', '.join(NETWORKS)}"},
    "width": {"type": float, "help": "multiplies all channels"},
    "batch": {"type": int, "help": "samples in the step"},
    "size": {"type": int, "help": "height and width of the images"},
    "timesteps": {"type": int, "nargs": "+", "metavar": "T", "help": "values of T"},
    "methods": {
        "nargs": "+",
        "metavar": "NAME",
        "help": f"of {', '.join((*PLAIN, *PRESETS, *PEERS))}",
    },
    "rounds": {"type": int, "help": "number of times each case is timed"},
    "precision": {"metavar": "POLICY", "help": "a Keras dtype policy"},
    "data_format": {"help": "channels_last or channels_first"},
    "threads": {"type": int, "metavar": "N", "help": "threads of the CPU, on PyTorch"},
}

OF_IMAGES = "network", "width", "batch", "size"
OF_STEPS = *OF_IMAGES, "timesteps", "rounds", "precision"


def add_settings(parser, *names, **defaults):
    """Adds options for fields of `Settings`, by name.

    Args:
        parser: An `argparse.ArgumentParser`.
        *names: Names of `OPTIONS`.
        **defaults: Default values by name, where they are not those of `Settings`.
    """
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    for name in names:
        default = defaults.get(name, getattr(Settings, name))
        parser.add_argument(
            f"--{name.replace('_', '-')}", default=default, **OPTIONS[name]
        )


def add_jit_compile(parser, what, default=Settings.jit_compile, **options):
    """Adds `--jit-compile`, with what it is for and further arguments of
    `add_argument`."""
    values = {
        "type": lambda text: JIT_COMPILE.get(text, text),
        "choices": JIT_COMPILE.values(),
        "metavar": "VALUE",
    }
    parser.add_argument(
        "--jit-compile",
        default=default,
        help=f"auto, true or false: {what}",
        **values,
        **options,
    )


def settings_of(arguments, **others):
    """The `Settings` of a command line, each of whose arguments is one, and of
    `others`. What is named twice counts once.

    Raises:
        command_line.Ended: If they are mistaken.
    """
    given = {
        name: tuple(dict.fromkeys(value)) if isinstance(value, list) else value
        for name, value in vars(arguments).items()
    }
    with command_line.mistakes():
        return Settings(**given, **others)
