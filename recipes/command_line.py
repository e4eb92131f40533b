"""Shared by the command lines."""

import pathlib
import sys

USER_MISTAKE = 2
"""Exit status, the same as that of argparse."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as in shells."""

DIVERGED = 1
"""Exit status of a run whose loss is not finite."""


def add_recipe(parser, what="python -m recipes.list lists them"):
    """Adds the arguments that name a recipe, and give its settings and its data.

    Args:
        parser: An `argparse.ArgumentParser`.
        what: String, what the name may be. Defaults to the name of a recipe.
    """
    parser.add_argument("recipe", metavar="NAME", help=what)
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="as in recipes.train")
    parser.add_argument("--data-dir", type=pathlib.Path, metavar="DIR", help="folder of the data set's files")


def mistake(error):
    """Prints the message of an error that is a mistake of the user; returns the exit status."""
    print(f"error: {error}", file=sys.stderr)
    return USER_MISTAKE


def ended_by_divergence(error):
    """Prints why a training cannot go on, a `Diverged`; returns the exit status."""
    print(f"error: the training diverged: {error}. Use a smaller --set learning_rate=...", file=sys.stderr)
    return DIVERGED


def interruptible(main, advice=""):
    """Runs a command line to its end or to Ctrl-C, which is no error that needs a traceback; returns the exit status.

    Args:
        main: Function that returns the exit status.
        advice: String, what follows `interrupted` in the message. Defaults to nothing.
    """
    try:
        return main()
    except KeyboardInterrupt:
        print(f"\ninterrupted{advice}")
        return INTERRUPTED


def check_set(assignments, refused):
    """Checks that `--set` names no setting that would have no effect.

    Args:
        assignments: List of strings `key=value`, the values of `--set`.
        refused: Dictionary from names of settings to what to do instead, a sentence.

    Raises:
        ValueError: If it does; the message names the setting.
    """
    for assignment in assignments:
        key = assignment.partition("=")[0]
        if key in refused:
            raise ValueError(f"`{key}` cannot be set here. Received: --set {assignment}. {refused[key]}")
