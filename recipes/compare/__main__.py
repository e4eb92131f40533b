"""Runs `recipes.compare.training`, and ends without a traceback after Ctrl-C."""

import sys

from recipes.command_line import INTERRUPTED


def main(argv=None):
    """Runs the command line `argv`, by default `sys.argv`; returns the exit status."""
    try:
        # Keras and its backend take seconds to import, so they are imported where Ctrl-C is handled.
        from recipes.compare import training

        return training.main(argv)
    except KeyboardInterrupt:
        print("\ninterrupted; repeat the command to start or resume")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
