"""Trains a recipe: `python -m recipes.train digits`. KERAS_BACKEND selects the backend.

Interrupted runs resume: the same command continues after the last completed epoch.
Without a name the recipes are listed; `--show` prints what a recipe is.
"""

import sys

from recipes import catalogue, command_line


def main(argv=None):
    """Runs the command line `argv`, by default `sys.argv`; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv

    def start(arguments):
        if arguments.recipe is None or arguments.show:
            print(shown(arguments))
            return 0
        # Keras and its backend take seconds to import, so they are imported where
        # Ctrl-C is handled.
        from recipes import training

        return training.start(arguments, ["-m", "recipes.train", *argv])

    advice = " before training began; repeat the command to start or resume"
    epilog = "\n  ".join(["recipes:", *catalogue.listed()])
    return command_line.command(
        None, "train", __doc__, add_arguments, start, advice, epilog=epilog
    )(argv)


def shown(arguments):
    """Lines with the settings of a recipe and what data it needs, or the recipes."""
    if arguments.recipe is None:
        return "\n".join(catalogue.listed())
    with command_line.mistakes():
        settings = catalogue.chosen(arguments).settings()
    name = settings.pop("name")
    data, folder = catalogue.data_of(name)
    lines = [f"{key}={value}".replace(" ", "") for key, value in settings.items()]
    title = f"{name}: {catalogue.DESCRIPTIONS[name]}\nsettings, as after --set:"
    return "\n  ".join([title, *lines]) + f"\ndata: {data}\n--data-dir: {folder}"


def add_arguments(parser):
    command_line.add_recipe(parser, "one of the recipes below", nargs="?")
    command_line.add_path(
        parser,
        "--output",
        "folder of the run: checkpoints, logs, result (default: runs/NAME)",
    )
    devices = "number of devices, or all; without accelerators they are virtual"
    parser.add_argument("--devices", metavar="N", default="1", help=devices)
    restart = (
        "deletes the run in the folder, with its ordinary network, and starts again"
    )
    parser.add_argument("--restart", action="store_true", help=restart)
    show = "prints the settings of the recipe and what data it needs; trains nothing"
    parser.add_argument("--show", action="store_true", help=show)
    command_line.add_settings(parser)


if __name__ == "__main__":
    raise SystemExit(main())
