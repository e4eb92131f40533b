"""Tests the model of a run on the test images of its recipe: `python -m
recipes.evaluate runs/digits`."""

from recipes import catalogue, command_line, device, run
from recipes.checkpoint import load_model
from recipes.run_folder import RunFolder, read_json


def add_arguments(parser):
    command_line.add_path(
        parser, "run", "folder of a run of python -m recipes.train", "RUN"
    )
    parser.add_argument(
        "--checkpoint", choices=("last", "best"), default="last", help="(default: last)"
    )
    training = "numbers of time steps (default: as in training)"
    command_line.add_count(
        parser,
        "--timesteps",
        "number of time steps",
        [],
        nargs="+",
        metavar="T",
        help=training,
    )
    command_line.add_data_dir(parser)


def evaluate(arguments):
    folder = RunFolder(arguments.run)
    with command_line.mistakes():
        recipe = recipe_of(folder)
        device.set_precision(recipe.precision)
        recipe.task.check_packages()
        if arguments.timesteps and recipe.spiking is None:
            raise ValueError(
                f"--timesteps is for spiking networks, but the run in {folder.path} is "
                "of an ordinary one."
            )
        model = load_model(getattr(folder, arguments.checkpoint), compile=False)
        tests = [
            with_timesteps(recipe, timesteps) for timesteps in arguments.timesteps
        ] or [recipe]
    for test, dataset, scores in scores_of(model, tests, arguments.data_dir):
        print(
            f"{recipe.name}, {test.in_time}, {dataset.test_size:,} {recipe.tested} "
            "images"
        )
        for name, value in scores.items():
            print(f"{recipe.tested} {name.replace('_', ' ')}: {value:.4f}", flush=True)


def scores_of(model, tests, data_dir):
    """Yields each `Recipe` of `tests`, which differ in time steps, with its `Dataset`
    and the scores of the model."""
    dataset = None
    for test in tests:
        # Frames of an event camera depend on the number of time steps.
        if dataset is None or test.has_time:
            with command_line.mistakes():
                dataset = test.load(data_dir)
                run.compile_model(model, test, dataset)
        if test.spiking is not None:
            model.timesteps = test.timesteps
        yield test, dataset, run.scores(model, test, dataset)


def with_timesteps(recipe, timesteps):
    """A recipe with the number of time steps of a test."""
    # Windows divide the time steps of training, and random steps are some of them.
    return recipe.with_settings(
        [f"timesteps={timesteps}", "windows=1", "random_steps=None"]
    )


def recipe_of(folder):
    """The recipe of the run in a `RunFolder`, with the settings of the run.

    Raises:
        FileNotFoundError: If there is no run.
        ValueError: If what is written about it is damaged or not of this version's
            recipes.
    """
    if not folder.settings.exists():
        raise FileNotFoundError(
            f"{folder.path} is not the folder of a run: there is no "
            f"{folder.settings.name} in it."
        )
    settings = read_json(folder.settings, {"name": str})
    try:
        recipe = catalogue.find(settings["name"])
        return recipe.with_settings(
            f"{key}={value}" for key, value in settings.items() if key != "name"
        )
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{folder.settings} does not belong to a recipe of this version. {error}"
        ) from error


main = command_line.command(__name__, "evaluate", __doc__, add_arguments, evaluate)
