"""Shows what a published network is, does and costs: `python -m recipes.audit FILE`.

FILE is a checkpoint of its authors, which `keras_ratesnn.models.from_checkpoint` reads,
a `.keras` file or the name of a shipped network. Where the authors' program passes
membranes from sample to sample, so does the network here. Without `--data` images are
drawn, of pixels from 0 to 255. For a checkpoint the images are normalised, each channel
by its mean and deviation.

The folder gets `audit.md`, with the definition, source and command of each number,
`audit.json` and `audit.png`.
"""

import dataclasses
import pathlib
import random
import shlex
import sys

from recipes import atomic_files, catalogue, command_line, markdown


def add_arguments(parser):
    parser.add_argument(
        "file", help="checkpoint, .keras file, or name of a shipped network"
    )
    command_line.add_checkpoint(parser)
    parser.add_argument(
        "--data",
        help="digits, fashion_mnist, or a folder with a folder of images a class "
        "(default: images are drawn)",
    )
    command_line.add_count(parser, "--samples", "number of images", 32)
    command_line.add_path(
        parser, "--output", "folder of the new files (default: audits/FILE)"
    )


def audit(arguments):
    # Keras and its backend take seconds to import.
    from keras_ratesnn import analysis

    output = arguments.output or pathlib.Path(
        "audits", pathlib.Path(arguments.file).name
    )
    # Seeds of Keras and images are drawn. `keras.utils.set_random_seed` would import
    # TensorFlow beside another backend, 400 MB.
    random.seed(0)
    with command_line.mistakes():
        file = _checked_file(arguments.file, output)
        model, origin = _network(arguments)
        x, y = _images(model, arguments)
        data = f"{len(x)} images ({arguments.data or 'drawn, of no data set'})"
        audited = analysis.audit(model, x, y)
        audited = dataclasses.replace(audited, data=data, origin=origin)
        print(audited)
        output.mkdir(parents=True, exist_ok=True)
        audited.plot().savefig(output / "audit.png")
        content = {"file": file, **audited.to_dict()}
        atomic_files.write_json(output / "audit.json", content)
        (output / "audit.md").write_text(_page(audited))


def _checked_file(file, output):
    """The identity of a file in any folder: its whole path, or that of a shipped
    network. The folder of an audit is that of one file."""
    from keras_ratesnn import models

    shipped = models.list_pretrained()
    if file not in shipped:
        path = pathlib.Path(file).resolve()
        if not path.is_file():
            raise ValueError(
                f"FILE must be a checkpoint, a .keras file or one of "
                f"{', '.join(shipped)}. Received: {file}, which is none."
            )
        file = str(path)
    earlier = output / "audit.json"
    if earlier.exists():
        before = atomic_files.read_json(earlier, {"file": str})["file"]
        if before != file:
            raise ValueError(
                f"{output} contains the audit of another file: {before}, now {file}. "
                "Pass another folder with --output."
            )
    return file


def _network(arguments):
    """The network, and where it comes from."""
    from keras_ratesnn import models
    from recipes import run_folder

    file, cards = arguments.file, models.list_pretrained()
    if file.endswith(".keras"):
        advice = "Save the model again, or audit another file."
        model = run_folder.load_model(pathlib.Path(file), False, advice)
        return model, f"{file}, saved by Keras"
    if file in cards:
        card = cards[file]
        origin = f"{file}, trained on {card.data_set}; takes {card.preprocessing}"
        return models.load_pretrained(file), origin
    options = {"network": arguments.network, "verbose": False, **arguments.arguments}
    model = models.from_checkpoint(file, **options)
    if "shared_membrane" in model.checkpoint_report.assumed:
        model = models.from_checkpoint(file, shared_membrane=True, **options)
    return model, str(model.checkpoint_report)


def _images(model, arguments):
    """Images, and their labels if they are not drawn."""
    import keras
    import numpy as np

    data, count = arguments.data, arguments.samples
    _check_takes_images(model, data in catalogue.FILES)
    shape = count, *model.input_shape[1:]
    if data is None:
        x, y = np.random.default_rng(0).integers(256, size=shape), None
    elif pathlib.Path(data).is_dir():
        batches = keras.utils.image_dataset_from_directory(
            data, batch_size=count, image_size=shape[1:3], crop_to_aspect_ratio=True
        )
        x, y = next(batches.as_numpy_iterator())
    else:
        recipe = catalogue.find(data)
        recipe.check_classifies("audit")
        dataset = recipe.load(None, in_memory_for="audit")
        x, y = dataset.test_images[:count], dataset.test_labels[:count]
    if hasattr(model, "checkpoint_report"):
        axes = tuple(range(x.ndim - 1))
        x = (x - x.mean(axes)) / x.std(axes)
    return x, y


def _check_takes_images(model, of_known_size):
    """Raises a ValueError unless the network takes what this command can give it."""
    import keras

    from recipes.run import layers_of

    shapes = [tensor.shape[1:] for tensor in model.inputs]
    takes = ""
    if len(shapes) > 1:
        takes = f"{len(shapes)} inputs"
    elif any(isinstance(layer, keras.layers.Embedding) for layer in layers_of(model)):
        takes = "indices, for an Embedding"
    elif None in shapes[0] and not of_known_size:
        takes = f"inputs of any size, {shapes[0]}"
    if takes:
        raise ValueError(
            f"FILE must be a network of images of one size. Received: one that takes "
            f"{takes}. Audit it in Python, with what it takes: "
            "print(keras_ratesnn.analysis.audit(model, x))."
        )


def _page(audited):
    """The audit as Markdown."""
    columns = "number", f"on {audited.measured}", "definition", "source", "command"
    return f"""# Audit of {audited.description.name}

```sh
python -m recipes.audit {shlex.join(sys.argv[1:])}
```

```text
{audited}
```

{markdown.table(columns, audited.numbers)}

![Firing rate of each layer, and the rate that breaks even](audit.png)
"""


main = command_line.command(__name__, "audit", __doc__, add_arguments, audit)
