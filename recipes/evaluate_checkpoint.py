"""Tests a published network on images that you have: `python -m
recipes.evaluate_checkpoint FILE --data imagenet`.

The file is one of its authors' PyTorch program, see
`keras_ratesnn.models.from_checkpoint`, whose report comes first. Images and their
normalisation are those of the recipes. With `--output` the network becomes a run that
`recipes.publish` takes, whose card says where the weights come from.
"""

import hashlib

from recipes import command_line

DATA = ("imagenet", "cifar10", "cifar100", "cifar10_dvs", "fashion_mnist")


def add_arguments(parser):
    command_line.add_path(parser, "file", "checkpoint of the authors' program", "FILE")
    parser.add_argument(
        "--network",
        metavar="NAME",
        help="the architecture, if the weights do not tell it",
    )
    parser.add_argument("--data", required=True, choices=DATA, help="the data set")
    command_line.add_count(
        parser,
        "--timesteps",
        "number of time steps",
        metavar="T",
        help="(default: that of the file)",
    )
    command_line.add_count(parser, "--batch-size", "number of images in a batch", 32)
    further = "further arguments of from_checkpoint, an object"
    parser.add_argument(
        "--arguments",
        type=command_line.json_object,
        default={},
        metavar="JSON",
        help=further,
    )
    command_line.add_path(
        parser, "--output", "new folder, for python -m recipes.publish DIR"
    )
    parser.add_argument(
        "--origin",
        metavar="TEXT",
        help="where the file comes from, such as an address, for --output",
    )
    command_line.add_data_dir(parser)


def evaluate(arguments):
    from recipes import run

    with command_line.mistakes():
        if (arguments.output is None) != (arguments.origin is None):
            raise ValueError(
                "--output and --origin must be given together: the card says where the "
                "weights come from."
            )
        if arguments.output is not None:
            arguments.output.mkdir(parents=True)
        recipe = _recipe(arguments)
        recipe.task.check_packages()
        model = _model(arguments)
        recipe = recipe.with_settings([f"timesteps={model.timesteps}"])
        dataset = recipe.load(arguments.data_dir)
        classes = model.network.output_shape[-1]
        if classes != dataset.classes:
            received = f"Received: {arguments.data}, with {dataset.classes}."
            raise ValueError(
                f"--data must have {classes} classes, as the network. {received}"
            )
        model.compile(**recipe.task.compile_arguments(recipe, dataset))
    scores = run.scores(model, recipe, dataset)
    print(
        f"T = {model.timesteps}, {dataset.test_size:,} test images of {arguments.data}"
    )
    for name, value in scores.items():
        print(f"test {name.replace('_', ' ')}: {value:.4f}", flush=True)
    if arguments.output is not None:
        _write(model, scores["accuracy"], dataset, arguments)


def _write(model, accuracy, dataset, arguments):
    """Writes the folder of a run."""
    from recipes.atomic_files import write_json
    from recipes.progress import this_part
    from recipes.run_folder import RunFolder

    folder, part = RunFolder(arguments.output), this_part()
    digest = hashlib.sha256(arguments.file.read_bytes()).hexdigest()
    record = {
        "settings": {"name": model.name},
        "score": "accuracy",
        "origin": f"{arguments.origin}: {arguments.file.name}, SHA-256 {digest}",
        "test_accuracy": accuracy,
        "test_images": dataset.test_size,
        "backend": part["backend"],
        "versions": part["versions"],
    }
    model.save(folder.last)
    write_json(folder.result, record)


def _recipe(arguments):
    """A recipe with these images."""
    from recipes import catalogue

    recipe = catalogue.find(f"{arguments.data}_maxformer")
    mix = [] if recipe.mix == "none" else ["mix=none"]
    return recipe.with_settings([*mix, f"batch_size={arguments.batch_size}"])


def _model(arguments):
    """The network of the file, after the normalisation of raw pixels."""
    from keras_ratesnn import SpikingModel, models
    from recipes import blocks
    from recipes.data import cifar, cifar10_dvs, fashion_mnist, imagenet

    colors, deviations = cifar.MEAN_COLORS, cifar.COLOR_DEVIATIONS
    shape, *pixels = {
        "imagenet": (
            imagenet.IMAGE_SHAPE,
            imagenet.MEAN_COLOR,
            imagenet.COLOR_DEVIATION,
        ),
        "cifar10": (cifar.IMAGE_SHAPE, colors["cifar10"], deviations["cifar10"]),
        "cifar100": (cifar.IMAGE_SHAPE, colors["cifar100"], deviations["cifar100"]),
        # Counts of events are not normalised.
        "cifar10_dvs": (cifar10_dvs.WHOLE_SHAPE, (0.0, 0.0), (1.0, 1.0)),
        "fashion_mnist": (
            fashion_mnist.IMAGE_SHAPE,
            (fashion_mnist.MEAN_PIXEL,),
            (fashion_mnist.PIXEL_DEVIATION,),
        ),
    }[arguments.data]
    options = {"input_shape": shape, **arguments.arguments}
    model = models.from_checkpoint(
        arguments.file, arguments.network, timesteps=arguments.timesteps, **options
    )
    return SpikingModel(
        blocks.on_pixels(model.network, *pixels), model.timesteps, name=model.name
    )


main = command_line.command(
    __name__, "evaluate_checkpoint", __doc__, add_arguments, evaluate
)
