"""Runs `recipes.compare.training`, and ends without a traceback after Ctrl-C."""

import sys

from recipes.command_line import interruptible


def main(argv=None):
    """Runs the command line `argv`, by default `sys.argv`; returns the exit status."""
    return interruptible(lambda: _main(argv), "; repeat the command to start or resume")


def _main(argv):
    # Keras and its backend take seconds to import, so they are imported where Ctrl-C is handled.
    from recipes.compare import training

    return training.main(argv)


if __name__ == "__main__":
    sys.exit(main())
