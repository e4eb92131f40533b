"""The arguments that the command lines of the benchmark share."""

import argparse

from recipes import command_line
from recipes.benchmark.settings import NETWORKS, Settings

JIT_COMPILE = {"auto": "auto", "true": True, "false": False}
"""The values of `Settings.jit_compile` on command lines."""


def benchmark_parser(module, doc, timesteps):
    """A parser of the network, the batch and the measurement, with the defaults of `Settings`.

    Args:
        module: String, the name of the module to run, as in `command_line.parser`.
        doc: String whose first line says what the command does.
        timesteps: Sequence of integers, the default values of T.
    """
    defaults = Settings()
    result = command_line.parser(module, doc, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    result.add_argument("--network", default=defaults.network, metavar="NAME", help=f"one of {', '.join(NETWORKS)}")
    result.add_argument("--width", type=float, default=defaults.width, help="multiplies all channels")
    result.add_argument("--batch", type=int, default=defaults.batch, help="images in the step")
    result.add_argument("--size", type=int, default=defaults.size, help="height and width of the images")
    result.add_argument("--timesteps", type=int, nargs="+", default=timesteps, metavar="T", help="values of T")
    result.add_argument("--rounds", type=int, default=defaults.rounds, help="number of times each case is timed")
    result.add_argument("--precision", default=defaults.precision, metavar="POLICY", help="a Keras dtype policy")
    return result
