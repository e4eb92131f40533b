"""Pretrained networks, for prediction on raw images and further training."""

import os

import keras

from keras_ratesnn._core import checks
from keras_ratesnn._core.annotations import Config, StepModeName
from keras_ratesnn.gradients import GradientMethod
from keras_ratesnn.models._arguments import checked_classes
from keras_ratesnn.models.precision import checked_policy, in_precision
from keras_ratesnn.models.pretrained import _files, _hubs
from keras_ratesnn.models.pretrained._card import Card
from keras_ratesnn.models.pretrained._hubs import place_to_publish
from keras_ratesnn.models.pretrained._transfer import with_classes
from keras_ratesnn.spiking_model import SpikingModel

__all__ = ["Card", "list_pretrained", "load_pretrained", "place_to_publish"]


def list_pretrained() -> dict[str, Card]:
    """Lists the pretrained networks.

    Example:

    >>> card = list_pretrained()["digits"]
    >>> card.timesteps, card.preprocessing
    (4, '8 x 8 pixels of one channel, from 0 to 16; the model divides them by 16')

    Returns:
        Dict of names, sorted, to `Card`s, which describe each network and its training.
    """
    return {name: _files.card(name) for name in _files.names()}


def load_pretrained(
    name: str | os.PathLike[str],
    *,
    classes: int | None = None,
    timesteps: int | None = None,
    gradient: str | GradientMethod | Config | None = None,
    step_mode: StepModeName | None = None,
    dtype: str | keras.DTypePolicy | None = None,
) -> SpikingModel:
    """Loads a pretrained network, which takes raw images: preprocessing is part of the
    model.

    Weights that do not ship with the package are downloaded once, into Keras' cache;
    those of a hub into the cache of its client (the extra `hubs`). Networks from
    folders and hubs are checked first, and no code in them is run:
    docs/howto/saving.md.

    Example:

    >>> model = load_pretrained("digits")
    >>> model.predict(np.zeros((1, 8, 8, 1)), verbose=0).shape
    (1, 10)

    Args:
        name: String, one of `list_pretrained()`; or an address, `"hf://user/name"` or
            `"hf://user/name@revision"` for the Hugging Face Hub,
            `"kaggle://user/name/framework/variation"` for Kaggle; or the path of a
            folder, as a string with a slash or as a path. `recipes.publish --to` makes
            such folders.
        classes: Integer >= 1, the number of classes. If it differs from that of the
            trained network, the last layer is replaced, with a warning. Defaults to
            `None`, as in training.
        timesteps: Integer >= 1, the number of time steps. Defaults to `None`, as in
            training.
        gradient: The method for further training, see `keras_ratesnn.SpikingModel`.
            Defaults to `None`, as in training.
        step_mode: `"multi"` or `"single"`, see `keras_ratesnn.SpikingModel`. Defaults
            to `None`, as in training.
        dtype: The dtype policy of all layers, as `"mixed_bfloat16"`. Defaults to
            `None`, Keras' global policy.

    Returns:
        A `keras_ratesnn.SpikingModel`, not compiled.

    Raises:
        ValueError: If an argument is out of bounds, a name is unknown, or the weights
            are damaged or not to be trusted.
        TypeError: If an argument has the wrong type.
        OSError: If the weights do not exist or cannot be downloaded.
        ImportError: If the package of a hub is not installed.
    """
    if str(name).endswith(".keras") and os.path.isfile(name):
        raise ValueError(
            "`name` must be one of list_pretrained(), an address or a folder. "
            f"Received: name={str(name)!r}, the file of a model. Load it with "
            f"keras.saving.load_model({str(name)!r})."
        )
    if _hubs.is_address(name) and name not in _files.names():
        card, trained = _hubs.network(name)
    else:
        card = _files.card(checks.one_of("name", name, _files.names()))
        trained = keras.saving.load_model(_files.weights_file(card), compile=False)
    policy = checked_policy(dtype)
    network = in_precision(trained.network, policy)
    if classes is not None:
        network = with_classes(
            network, checked_classes(classes), f"The pretrained network {name!r}"
        )
    # What is not given is as in training.
    timesteps = trained.timesteps if timesteps is None else timesteps
    gradient = trained.gradient if gradient is None else gradient
    step_mode = trained.step_mode if step_mode is None else step_mode
    return SpikingModel(
        network,
        timesteps=timesteps,
        gradient=gradient,
        step_mode=step_mode,
        mask_value=trained.mask_value,
        name=card.name,
        dtype=policy,
    )
