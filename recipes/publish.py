"""Creates a pretrained network from a finished run: `python -m recipes.publish
runs/digits --name digits ...`.

Its weights, without optimizer state, and its card are written to the folders of
`keras_ratesnn.models.load_pretrained`; or, with `--to`, to a folder or a hub, with a
page that describes the network. Networks of recipes take raw images: preprocessing is
part of the network.
"""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import tempfile
import zipfile

import h5py
import keras
import numpy as np

from keras_ratesnn import SpikingModel, deploy
from keras_ratesnn.models import pretrained
from keras_ratesnn.models.precision import in_precision
from recipes import addresses, atomic_files, command_line, device, methods
from recipes.evaluate import recipe_of, scores_of, with_timesteps
from recipes.run_folder import BEST, LAST, RunFolder, complete, load_model

FOLDER = pathlib.Path(pretrained.__file__).parent
"""The package's `cards/` and `weights/`."""

CARD = "card.json"
"""The name of a card in a folder or on a hub."""

PRECISION = "float32"
"""The precision of the file; users choose theirs when they load it."""

WEIGHTS = "model.weights.h5"
"""Where Keras writes the weights in a `.keras` file."""

TEMPLATE = pathlib.Path(__file__).with_name("hub_page.txt")
"""The template of the page on a hub. The citation in it is that of docs/citing.md."""

INTEGERS_ROW = (
    "| integers | accuracy {test_accuracy:.2%}; C program: {constants:,} bytes of "
    "constants and {memory:,} of memory, {memory_without_cache:,} with "
    "`cache_input=False` |\n"
)

LARGEST_SHIPPED = 16 * 2**20
"""The most bytes of a file in the package: larger ones would increase the size of
clones and wheels."""


def publish(model, record, arguments, place, accuracies, integers=None):
    """Writes the weights file and the card of a pretrained network.

    Args:
        model: The trained `SpikingModel`.
        record: Dict, the record of its run, see `recipes.run`.
        arguments: Those of the command line.
        place: What `checked_place` returns.
        accuracies: Dict of numbers of time steps, also that of the model, to test
            accuracies.
        integers: Dict, what the card says of integers, see `Card`. Defaults to `None`,
            nothing.

    Returns:
        `(card, path)`: the `Card`, and the path of the weights file; of a hub its
        address.

    Raises:
        ValueError: If the file is too large to ship.
        OSError: If a hub cannot be reached, or refuses.
        ImportError: If the package of a hub is not installed.
    """
    name, file, settings = arguments.name, f"{arguments.name}.keras", record["settings"]
    own_settings = {}
    for setting in ("levels", "weights"):
        if settings.get(setting) is not None:
            own_settings[setting] = settings[setting]
    # Further digits of a float32 accuracy are not significant.
    rounded = {number: round(accuracies[number], 6) for number in sorted(accuracies)}
    with tempfile.TemporaryDirectory() as temporary:
        path = pathlib.Path(temporary, file)
        # A new model of the same network has no optimizer.
        options = {"mask_value": model.mask_value, "name": name}
        SpikingModel(
            model.network, model.timesteps, model.gradient, model.step_mode, **options
        ).save(path)
        if arguments.half:
            _halve(path)
        if place is None and path.stat().st_size > LARGEST_SHIPPED:
            raise ValueError(
                f"The weights take {path.stat().st_size / 2**20:.1f} MiB, but a file "
                f"that ships with the package at most {LARGEST_SHIPPED / 2**20:.0f}. "
                "Pass a hub or a folder with --to."
            )
        card = pretrained.Card(
            name=name,
            architecture=settings["name"],
            arguments=own_settings,
            preprocessing=arguments.preprocessing,
            data_set=arguments.data_set,
            timesteps=model.timesteps,
            gradient=_gradient(settings),
            epochs=settings["epochs"],
            seed=settings["seed"],
            test_accuracy=rounded[model.timesteps],
            accuracies=rounded,
            test_images=record["test_images"],
            parameters=model.count_params(),
            backend=record["backend"],
            versions=record["versions"],
            licence=arguments.licence,
            integers=integers or {},
            file=file,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            url=None,
        )
        card.write(temporary, CARD)
        if place is not None:
            page = _hub_page(card, os.fspath(arguments.to))
            pathlib.Path(temporary, "README.md").write_text(page, encoding="utf-8")
            place.publish(pathlib.Path(temporary))
            return card, arguments.to if place.path is None else place.path / file
        weights = arguments.folder / "weights" / file
        card_path = arguments.folder / "cards" / f"{name}.json"
        _put({card_path: pathlib.Path(temporary, CARD), weights: path})
    return card, weights


def _gradient(settings):
    """How a network was trained, for its card."""
    gradient = methods.gradient_name(settings, " ")
    if settings.get("random_timesteps") is not None:
        gradient += ", T from {} to {}".format(*settings["random_timesteps"])
    if settings.get("start_from") is not None:
        gradient += f", from the weights of {settings['start_from']}"
    return gradient


def _put(files):
    """Copies files, a dict from their places: what is there stays until all are copied.
    The first one takes its place last."""
    with contextlib.ExitStack() as written:
        for place, file in files.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, written.enter_context(atomic_files.writing(place)))


def _round_kernels(model):
    """Rounds the kernels of a model to numbers of float16, in place.

    Raises:
        ValueError: If a number is too large.
    """
    for weight in model.weights:
        if _is_kernel(weight):
            values = keras.ops.convert_to_numpy(weight.value)
            with np.errstate(over="ignore"):
                rounded = values.astype("float16")
            if not np.isfinite(rounded).all():
                raise ValueError(
                    f"--half needs weights of at most {np.finfo('float16').max:.0f}. "
                    f"Received: {np.abs(values).max():g} in {weight.path!r}. Leave "
                    "--half out."
                )
            weight.assign(rounded)


def _halve(path):
    """Rewrites a `.keras` file whose kernels are rounded: these take 2 bytes a number.
    Keras loads it as before."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    weights = io.BytesIO()
    with (
        h5py.File(io.BytesIO(members[WEIGHTS])) as whole,
        h5py.File(weights, "w") as half,
    ):

        def copy(name, item):
            if isinstance(item, h5py.Dataset):
                dtype = "float16" if _is_kernel(item) else item.dtype
                copied = half.create_dataset(name, data=item[()], dtype=dtype)
            else:
                copied = half.require_group(name)
            copied.attrs.update(item.attrs)

        half.attrs.update(whole.attrs)
        whole.visititems(copy)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, weights.getvalue() if name == WEIGHTS else content)


def _is_kernel(weight):
    return len(weight.shape) > 1 and str(weight.dtype) == "float32"


def _hub_page(card, address):
    """The text of README.md on a hub: what the hub's search reads of the network, and
    what people read.

    Args:
        card: The `Card`.
        address: String, the address for `load_pretrained`.
    """
    accuracies = "".join(
        f"| {timesteps} | {accuracy:.2%} |\n"
        for timesteps, accuracy in card.accuracies.items()
    )
    integers = INTEGERS_ROW.format(**card.integers) if card.integers else ""
    repository = addresses.repository()
    form = TEMPLATE.read_text(encoding="utf-8")
    return form.format(
        card=card,
        address=address,
        front_matter=_front_matter(card),
        integers=integers,
        accuracies=accuracies,
        versions=", ".join(
            f"{name} {number}" for name, number in card.versions.items()
        ),
        library=f"[keras_ratesnn]({repository})" if repository else "keras_ratesnn",
    )


def _front_matter(card):
    """YAML, of which JSON is a part: no text of a card can be taken for something
    else."""
    dataset = {"name": card.data_set, "type": card.architecture}
    metric = {
        "type": "accuracy",
        "value": card.test_accuracy,
        "name": f"test accuracy, T = {card.timesteps}",
    }
    results = [
        {
            "task": {"type": "image-classification"},
            "dataset": dataset,
            "metrics": [metric],
        }
    ]
    fields = {
        "license": card.licence.lower(),
        "library_name": "keras",
        "tags": ["keras_ratesnn", "spiking-neural-network"],
        "metrics": ["accuracy"],
        "model-index": [{"name": card.name, "results": results}],
    }
    return "".join(
        f"{name}: {json.dumps(value, ensure_ascii=False)}\n"
        for name, value in fields.items()
    )


def measured(model, folder, data_dir, timesteps):
    """The test accuracies of a model with several numbers of time steps, a dict.

    Args:
        model: The trained `SpikingModel` of a run.
        folder: The `RunFolder` of the run.
        data_dir: Folder of the data set's files, or None for its default.
        timesteps: Iterable of integers.
    """
    trained, trained_for = recipe_of(folder), model.timesteps
    tests = [with_timesteps(trained, number) for number in timesteps]
    accuracies = {
        test.timesteps: scores["accuracy"]
        for test, _, scores in scores_of(model, tests, data_dir)
    }
    model.timesteps = trained_for
    return accuracies


def integer_facts(model, folder, data_dir):
    """The entry on integers in the card of a model that was trained with quantised
    weights: see `Card`. Nothing if the network has layers that integers cannot
    compute, or its inputs are no integers.

    Args:
        model: The trained `SpikingModel` of a run.
        folder: The `RunFolder` of the run.
        data_dir: Folder of the data set's files, or None for its default.
    """
    dataset = recipe_of(folder).load(data_dir)
    try:
        chip = deploy.to_integers(model, verbose=False)
        logits = chip.integer_logits(dataset.test_images)
    except (TypeError, ValueError) as error:
        print(f"note: no network of integers is on the card. {error}")
        return {}
    accuracy = np.mean(logits.argmax(axis=-1) == dataset.test_labels)
    with tempfile.TemporaryDirectory() as temporary:
        path = pathlib.Path(temporary, "net.c")
        size = deploy.export_c(chip, path)
        smallest = deploy.export_c(chip, path, cache_input=False)
    return {
        "test_accuracy": round(float(accuracy), 6),
        "constants": size.constants,
        "memory": size.memory,
        "memory_without_cache": smallest.memory,
    }


def checked_place(arguments, record):
    """Where a network is published besides the package, or None. It is checked before
    the network is tested, which may take minutes.

    Raises:
        ValueError: If the run is not that of a spiking classifier, or the name is not
            one of a file or is taken.
    """
    settings = record["settings"]
    if "test_accuracy" not in record or settings.get("ordinary") == "only":
        raise ValueError(
            "Only spiking networks that classify images can be published. Received: a "
            f"run of recipe {settings['name']!r} with "
            f"ordinary={settings.get('ordinary')!r}."
        )
    name, place = arguments.name, None
    if not re.fullmatch(r"[\w-]+", name) or f"{name}.keras" in (LAST, BEST):
        raise ValueError(
            "`name` must consist of letters, digits, _ and -, and not be that of a "
            f"checkpoint in the folder of a run. Received: name={name!r}."
        )
    taken = arguments.folder / "cards" / f"{name}.json"
    if arguments.to is not None:
        place = pretrained.place_to_publish(arguments.to)
        # Hubs keep the versions before.
        taken = None if place.path is None else place.path / CARD
    if taken is not None and taken.exists() and not arguments.replace:
        raise ValueError(
            f"`name` must be new, but there is a network in {taken}. To replace it, "
            "add --replace."
        )
    return place


def publish_run(arguments):
    folder = RunFolder(arguments.run)
    with command_line.mistakes(), complete(folder.result):
        record = folder.read_test_result()
        precision = record["settings"].get("precision", PRECISION)
        device.set_precision(precision)
        place = checked_place(arguments, record)
        model, timesteps = load_model(folder.last), set(arguments.timesteps)
        if precision != PRECISION:
            device.set_precision(PRECISION)
            model = in_precision(model, PRECISION)
        if arguments.half:
            _round_kernels(model)
        if arguments.half or precision != PRECISION:
            timesteps.add(model.timesteps)
        accuracies, integers = {model.timesteps: record["test_accuracy"]}, None
        if timesteps:
            tested = measured(model, folder, arguments.data_dir, sorted(timesteps))
            accuracies.update(tested)
        if record["settings"].get("weights") is not None:
            integers = integer_facts(model, folder, arguments.data_dir)
        card, path = publish(model, record, arguments, place, accuracies, integers)
    print(f"{path}: test accuracy {card.test_accuracy:.4f}, SHA-256 {card.sha256}")
    if place is not None:
        print(f"load_pretrained({arguments.to!r}) loads it")


def add_arguments(parser):
    command_line.add_path(parser, "run", "folder of a finished run", "RUN")
    for name, metavar, meaning in (
        ("--name", "NAME", "name for load_pretrained"),
        ("--data-set", "TEXT", "data set for training and testing"),
        (
            "--preprocessing",
            "TEXT",
            "format of raw images, and preprocessing inside the model",
        ),
        ("--licence", "SPDX", "licence of the weights"),
    ):
        parser.add_argument(name, required=True, metavar=metavar, help=meaning)
    hub = (
        "hf://user/name, kaggle://user/name/framework/variation or a folder, for "
        "card, weights and README.md; not --folder"
    )
    parser.add_argument("--to", metavar="ADDRESS", help=hub)
    command_line.add_data_dir(
        parser,
        "folder of the data, for --timesteps, or for a network that was not trained "
        f"in {PRECISION}",
    )
    numbers = (
        "numbers of time steps at which the network is tested as well, for its card"
    )
    command_line.add_timesteps(parser, numbers)
    command_line.add_path(
        parser, "--folder", "folder of cards (default: the package's)", default=FOLDER
    )
    half = "stores kernels in float16: half the size"
    parser.add_argument("--half", action="store_true", help=half)
    replace = "replaces a network of the same name"
    parser.add_argument("--replace", action="store_true", help=replace)


ADVICE = "; repeat the command to publish the network"

main = command_line.command(
    __name__, "publish", __doc__, add_arguments, publish_run, ADVICE
)
