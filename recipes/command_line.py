"""The skeleton of all commands: parser, mistakes as one line with status 2, Ctrl-C with
status 130."""

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Iterable

from recipes import checks
from recipes.settings import SETTINGS

DIVERGED = 1
"""Exit status of a run whose loss is not finite."""

USER_MISTAKE = 2
"""Exit status, the same as that of argparse."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as in shells."""

A_MOMENT = 0.01
"""The seconds after which an ignored Ctrl-C is sent again."""

SMALLER = "Use a smaller --set learning_rate=..."
"""Advice for a training that diverged."""


class Ended(Exception):
    """Ends a command with this message, without a traceback.

    Args:
        message: String, or the exception that says what is wrong.
        status: Integer, the exit status. Defaults to that of a mistake of the user.
    """

    def __init__(self, message, status=USER_MISTAKE):
        super().__init__(message)
        self.status = status


def command(name, module, doc, add_arguments, work, advice="", **options):
    """The `main` of `python -m recipes.MODULE`: it runs the command to its end, a
    mistake or Ctrl-C.

    Where the module itself is what Python was told to run, it runs at once.

    Args:
        name: The `__name__` of the module.
        module: String, the name of the module.
        doc: String whose first paragraph says what the command does.
        add_arguments: Function that adds arguments to an `argparse.ArgumentParser`.
            What takes seconds to import is imported in it and in `work`, where Ctrl-C
            is handled.
        work: Function of the parsed arguments, which may return an exit status.
        advice: String that follows `interrupted` in the message. Defaults to nothing.
        **options: Further arguments of `argparse.ArgumentParser`.

    Returns:
        Function of a command line, a list of strings, by default that of `sys.argv`; it
        returns the exit status.
    """

    def main(argv=None):
        try:
            with _interruptible():
                options_parser = parser(module, doc, add_arguments, **options)
                return work(options_parser.parse_args(argv)) or 0
        except Ended as error:
            print(f"error: {error}", file=sys.stderr)
            return error.status
        except KeyboardInterrupt:
            print(f"\ninterrupted{advice}")
            return INTERRUPTED

    if name == "__main__":
        raise SystemExit(main())
    return main


@contextlib.contextmanager
def _interruptible():
    """A context in which Ctrl-C ends a command also where Python ignores exceptions: in
    a destructor, or in what JAX calls when garbage is collected, where most of it
    arrives that is pressed meanwhile."""
    before = sys.unraisablehook

    def again(ignored):
        if issubclass(ignored.exc_type, KeyboardInterrupt):
            # Not here, where it would be ignored as well.
            threading.Timer(A_MOMENT, os.kill, (os.getpid(), signal.SIGINT)).start()
        else:
            before(ignored)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextlib.contextmanager
def mistakes(*further):
    """A context in which errors about values, files and packages are mistakes of the
    user; elsewhere they are defects.

    Args:
        *further: Classes of further exceptions that are.
    """
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError, *further) as error:
        raise Ended(error) from error


class _Help(argparse.RawDescriptionHelpFormatter):
    """Shows of all that takes a value what there is to choose from, and of options the
    default, unless their own text does."""

    def _get_help_string(self, action):
        text, default = action.help, action.default
        if action.choices and action.metavar:
            text += f": {_words(action.choices, ', ')}"
        if not action.option_strings or action.required or action.nargs == 0:
            return text
        if "(default: " not in text:
            text += f" (default: {_words(default) or 'none'})"
        return text


def _words(values, space=" "):
    """A value, or several, as users type them."""
    if isinstance(values, Iterable) and not isinstance(values, str):
        return space.join(map(str, values))
    return "" if values is None else str(values)


def parser(module, doc, add_arguments, **options):
    """The parser of a command, see `command`."""
    result = argparse.ArgumentParser(
        formatter_class=_Help,
        prog=f"python -m recipes.{module}",
        description=doc.split("\n\n")[0],
        allow_abbrev=False,
        **options,
    )
    add_arguments(result)
    return result


RECIPE = "name of a recipe; python -m recipes.train lists them"


def add_recipe(parser, what=RECIPE, **options):
    """Adds the arguments that `catalogue.chosen` reads: the name of a recipe, and its
    settings; and `--data-dir`.

    Args:
        parser: An `argparse.ArgumentParser`.
        what: String, what the name may be. Defaults to the name of a recipe.
        **options: Further arguments of `add_argument` for the name.
    """
    parser.add_argument("recipe", metavar="NAME", help=what, **options)
    settings = (
        "overrides settings of the recipe, for example timesteps=8 gradient=bptt "
        "epochs=20; python -m recipes.train --help lists them"
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help=settings,
    )
    add_data_dir(parser)


def add_settings(parser):
    """Adds an option for each setting of a recipe, which is the same as `--set`."""
    group = parser.add_argument_group(
        "settings of the recipe, as after --set",
        "A recipe may have other defaults: NAME --show prints them. None is without.",
    )
    for name, field in SETTINGS.items():
        check, default = field.metadata["check"], field.default
        choices = getattr(check, "keywords", {}).get("choices", ())
        listed = f": {_words(choices, ', ')}" if choices else ""
        if default is dataclasses.MISSING:
            default = "the recipe's"
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest="set",
            action="append",
            type=f"{name}={{}}".format,
            metavar="VALUE",
            help=f"{field.metadata['meaning']}{listed} (default: {default})",
        )


def add_count(parser, name, what, default=None, **options):
    """Adds an option for an integer >= 1, or for several.

    Args:
        parser: An `argparse.ArgumentParser`.
        name: String, like "--images".
        what: String, what is counted, like "size of the batch", and perhaps what the
            default is.
        default: Its default. Defaults to `None`.
        **options: Further arguments of `add_argument`.
    """
    options = {"metavar": "N", "help": what, **options}
    parser.add_argument(
        name, type=functools.partial(_count, name, what), default=default, **options
    )


def add_timesteps(parser, what, default=()):
    """Adds `--timesteps`, for several numbers of time steps, with what it is for."""
    add_count(parser, "--timesteps", what, default, nargs="+", metavar="T")


def add_seeds(parser, default=5):
    """Adds `--seeds`, how many seeds there are."""
    add_count(parser, "--seeds", "number of seeds, which are 0 to N - 1", default)


def _count(name, what, text):
    number = int(text) if text.removeprefix("-").isdecimal() else text
    with mistakes():
        return checks.positive_integer(
            name, number, advice=f"It is the {what.partition(' (')[0]}."
        )


def add_data_dir(parser, what="folder of the data; recipes/README.md says which"):
    """Adds `--data-dir`, with what it is for."""
    add_path(parser, "--data-dir", what)


def add_path(parser, name, what, metavar="DIR", **options):
    """Adds an argument that is a path, by default of a folder; for the others see
    `add_count`."""
    parser.add_argument(name, type=pathlib.Path, metavar=metavar, help=what, **options)


def add_results(parser, default, figure):
    """Adds `--output`, a file of results, and `--show`, which draws a figure of this
    name beside it."""
    output = "file of results, a JSON object on each line"
    add_path(parser, "--output", output, metavar="FILE", default=default)
    show = f"computes nothing, prints the tables and draws the figure {figure}"
    parser.add_argument("--show", action="store_true", help=show)


def add_checkpoint(parser):
    """Adds `--network` and `--arguments`, those of `from_checkpoint`."""
    architecture = "of a checkpoint: the architecture, if the weights do not tell it"
    parser.add_argument("--network", metavar="NAME", help=architecture)
    options = "for a checkpoint: further arguments of from_checkpoint, an object"
    parser.add_argument(
        "--arguments", type=_json_object, metavar="JSON", default={}, help=options
    )


def _json_object(text):
    """The type of an argument that is a JSON object."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"must be JSON, not {text!r}: {error}"
        ) from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(
            f"must be a JSON object, such as '{{\"classes\": 10}}', not {text!r}"
        )
    return value
