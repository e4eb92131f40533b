"""The command line of `recipes.compare.training`."""

import sys

from recipes import command_line


def main(argv=None):
    """Runs the command line `argv`, by default `sys.argv`; returns the exit status."""
    # Keras and its backend take seconds to import, so they are imported where Ctrl-C is handled.
    return command_line.run(_parser, _compare, argv, "; repeat the command to start or resume")


def _parser():
    from recipes.compare import training

    return training.parser()


def _compare(arguments):
    from recipes.compare import training

    return training.compare(arguments)


if __name__ == "__main__":
    sys.exit(main())
