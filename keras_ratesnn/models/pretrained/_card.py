"""Card: describes a pretrained network and its training, in a JSON file next to its
weights."""

import dataclasses
import json
import pathlib
import re

from keras_ratesnn._core import whole_files


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """Describes a pretrained network, its training and its weights file.

    Attributes:
        name: The name for `load_pretrained`. It is the name of the card's file, on hubs
            that of the weights file, and not stored in it.
        architecture: Name of the function of `keras_ratesnn.models` that builds the
            network, or of the recipe that defines it.
        arguments: Dict, the arguments of that function.
        preprocessing: The format of raw images, and the preprocessing inside the model.
        data_set: The data set for training and testing.
        timesteps: Integer, the number of time steps T.
        gradient: Name of the training method; `"not known"` for weights of others.
        epochs: Integer, the number of passes over the training images; 0 for weights of
            others.
        seed: Integer.
        test_accuracy: Float, the accuracy on the test images.
        accuracies: Dict of numbers of time steps to the accuracy of the same weights on
            the test images.
        test_images: Integer, the number of test images.
        parameters: Integer, the number of all weights.
        backend: Name of the backend used for training; the network runs on all.
        versions: Dict of package names to the versions used for training.
        licence: SPDX identifier of the licence of the weights.
        file: Name of the weights file, written by `SpikingModel.save`.
        sha256: Hash of that file, 64 hexadecimal digits.
        url: The download URL of the file, or `None` if it ships with the package.
        origin: Where weights of others come from. Defaults to `""`, for weights that
            the recipes trained.
        integers: Dict, of a network that was trained with quantised weights: what
            `keras_ratesnn.deploy.to_integers` makes of it. It has the `"test_accuracy"`
            of integers, and of the C program of `keras_ratesnn.deploy.export_c` the
            bytes of `"constants"`, of `"memory"`, and of `"memory_without_cache"`, with
            `cache_input=False`. Defaults to none.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If `file` or `sha256` has the wrong format.
    """

    name: str
    architecture: str
    arguments: dict
    preprocessing: str
    data_set: str
    timesteps: int
    gradient: str
    epochs: int
    seed: int
    test_accuracy: float
    accuracies: dict
    test_images: int
    parameters: int
    backend: str
    versions: dict
    licence: str
    file: str
    sha256: str
    url: str | None
    origin: str = ""
    integers: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, field.type):  # type: ignore[arg-type]  # Annotations are classes here, not strings.
                wanted = getattr(field.type, "__name__", field.type)
                raise TypeError(
                    f"`{field.name}` must be of type {wanted}. Received: "
                    f"{field.name}={value!r}."
                )
        if not re.fullmatch(r"[\w-][\w.-]*\.keras", self.file):
            raise ValueError(
                "`file` must be the name of a .keras file, without a folder. "
                f"Received: file={self.file!r}."
            )
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(
                "`sha256` must be 64 digits 0 to 9 and a to f. Received: "
                f"sha256={self.sha256!r}."
            )

    @property
    def network(self):
        """The call that builds the network, as text."""
        arguments = (f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.architecture}({', '.join(arguments)})"

    def write(self, folder, file=None):
        """Writes the card to a JSON file in a folder, by default NAME.json."""
        content = dataclasses.asdict(self)
        del content["name"]
        path = pathlib.Path(folder, file or f"{self.name}.json")
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        whole_files.replace(path, lambda part: part.write_text(text, encoding="utf-8"))


def read(
    path,
    advice="Reinstall keras_ratesnn, or correct the file if it is your own.",
    named_by_file=False,
):
    """Reads a card from a JSON file.

    Args:
        path: Path of the file.
        advice: String, what to do if it is damaged. Defaults to the advice for cards of
            the package.
        named_by_file: Boolean, whether the card has the name of the weights file, not
            its own. Defaults to `False`.

    Raises:
        ValueError: If the file is not JSON or not a card; the message names the file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise TypeError(
                f"It must contain an object. Received: {type(content).__name__}."
            )
        names = [
            field.name for field in dataclasses.fields(Card) if field.name != "name"
        ]
        # Cards of earlier versions have none of these.
        missing = [
            name
            for name in names
            if name not in content and name not in ("origin", "integers")
        ]
        unknown = [name for name in content if name not in names]
        if missing or unknown:
            raise ValueError(f"Missing fields: {missing}. Unknown fields: {unknown}.")
        # The keys of JSON are strings.
        content["accuracies"] = {
            int(timesteps): accuracy
            for timesteps, accuracy in content["accuracies"].items()
        }
        return Card(
            name=pathlib.PurePath(str(content["file"])).stem
            if named_by_file
            else path.stem,
            **content,
        )
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        what = str(error).rstrip(".")
        raise ValueError(f"The card {path} is damaged: {what}. {advice}") from error
