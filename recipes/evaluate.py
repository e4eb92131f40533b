"""Tests a network on the test images of a recipe: `python -m recipes.evaluate
runs/digits` the model of a run, `python -m recipes.evaluate FILE --data imagenet` a
published network on images that you have.

Such a file is one of its authors' PyTorch program, see
`keras_ratesnn.models.from_checkpoint`, whose report comes first. Images and their
normalisation are those of the recipes.
"""

from recipes import catalogue, command_line

DATA = ("imagenet", "cifar10", "cifar100", "cifar10_dvs", "fashion_mnist")

FOR_FILES = ("network", "arguments")
"""The options of published networks."""


def add_arguments(parser):
    command_line.add_path(
        parser,
        "run",
        "folder of a run of python -m recipes.train, or checkpoint of the authors' "
        "program",
        "RUN",
    )
    which = "checkpoint of the run"
    parser.add_argument(
        "--checkpoint", choices=("last", "best"), default="last", help=which
    )
    numbers = "numbers of time steps (default: as in training, or that of the file)"
    command_line.add_timesteps(parser, numbers)
    command_line.add_data_dir(parser)
    data = "data set of a checkpoint (default: that of the run)"
    parser.add_argument("--data", choices=DATA, help=data)
    command_line.add_checkpoint(parser)


def evaluate(arguments):
    from recipes import device, run_folder

    with command_line.mistakes():
        if arguments.data is None:
            for name in FOR_FILES:
                value = getattr(arguments, name)
                if value:
                    raise ValueError(
                        f"--{name} is for checkpoints of authors. Received: "
                        f"--{name}={value}. Name their data set with --data."
                    )
            folder = run_folder.RunFolder(arguments.run)
            recipe = recipe_of(folder)
            if arguments.timesteps and not recipe.is_spiking:
                raise ValueError(
                    f"--timesteps is for spiking networks, but the run in "
                    f"{folder.path} is of an ordinary one."
                )
            device.set_precision(recipe.precision)
            recipe.task.check_packages()
            path = getattr(folder, arguments.checkpoint)
            model, tests = run_folder.load_model(path, compile=False), [recipe]
        else:
            recipe, model = _published(arguments)
            tests = [with_timesteps(recipe, model.timesteps)]
        if arguments.timesteps:
            tests = [with_timesteps(recipe, number) for number in arguments.timesteps]
    for test, dataset, scores in scores_of(model, tests, arguments.data_dir):
        images = f"{dataset.test_size:,} {recipe.tested} images"
        print(f"{arguments.data or recipe.name}, {test.in_time}, {images}")
        for name, value in scores.items():
            print(f"{recipe.tested} {name.replace('_', ' ')}: {value:.4f}", flush=True)


def scores_of(model, tests, data_dir):
    """Yields each `Recipe` of `tests`, which differ in time steps, with its `Dataset`
    and the scores of the model."""
    from recipes import run

    dataset = None
    for test in tests:
        # Frames of an event camera depend on the number of time steps.
        if dataset is None or test.has_time:
            with command_line.mistakes():
                dataset = test.load(data_dir)
                _check_classes(model, test, dataset)
                run.compile_model(model, test, dataset)
        if test.is_spiking:
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
    from recipes.run_folder import read_json

    if not folder.settings.exists():
        raise FileNotFoundError(
            f"{folder.path} is not the folder of a run: there is no "
            f"{folder.settings.name} in it."
        )
    settings = read_json(folder.settings, {"name": str})
    name = settings.pop("name")
    try:
        return catalogue.find(name).with_settings(
            f"{key}={value}" for key, value in settings.items()
        )
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{folder.settings} does not belong to a recipe of this version. {error}"
        ) from error


# Published networks


def _published(arguments):
    """A recipe with the images of the data set, and the network of the file, after the
    normalisation of raw pixels."""
    from keras_ratesnn import SpikingModel, models
    from recipes import layers
    from recipes.data import cifar, fashion_mnist, imagenet

    recipe = catalogue.find(f"{arguments.data}_maxformer")
    recipe = recipe.with_settings(["mix=none", "batch_size=32"])
    recipe.task.check_packages()
    shape, pixels = {
        "imagenet": (imagenet.IMAGE_SHAPE, imagenet.PIXELS),
        "cifar10": (cifar.IMAGE_SHAPE, cifar.PIXELS["cifar10"]),
        "cifar100": (cifar.IMAGE_SHAPE, cifar.PIXELS["cifar100"]),
        # Counts of events are not normalised.
        "cifar10_dvs": ((128, 128, 2), ((0.0, 0.0), (1.0, 1.0))),
        "fashion_mnist": (fashion_mnist.IMAGE_SHAPE, fashion_mnist.PIXELS),
    }[arguments.data]
    options = {"input_shape": shape, **arguments.arguments}
    if arguments.timesteps:
        options["timesteps"] = arguments.timesteps[0]
    model = models.from_checkpoint(arguments.run, arguments.network, **options)
    network = layers.on_pixels(model.network, *pixels)
    return recipe, SpikingModel(network, model.timesteps, name=model.name)


def _check_classes(model, recipe, dataset):
    """Checks that a network that classifies has the classes of the data."""
    if recipe.task.augments and model.output_shape[-1] != dataset.classes:
        raise ValueError(
            f"The data must have {model.output_shape[-1]} classes, as the network. "
            f"Received: {recipe.name}, with {dataset.classes}."
        )


main = command_line.command(__name__, "evaluate", __doc__, add_arguments, evaluate)
