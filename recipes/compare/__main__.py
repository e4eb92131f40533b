"""Trains a recipe with several methods and seeds: `python -m recipes.compare digits
--seeds 5`.

This is the command line of `recipes.compare.training`.
"""

from recipes import command_line


def _training():
    # Keras and its backend take seconds to import, so they are imported where Ctrl-C is
    # handled.
    from recipes.compare import training

    return training


def _add_arguments(parser):
    _training().add_arguments(parser)


def _compare(arguments):
    return _training().compare(arguments)


ADVICE = "; repeat the command to start or resume"

main = command_line.command(
    __name__, "compare", __doc__, _add_arguments, _compare, ADVICE
)
