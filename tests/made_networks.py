"""Folders of pretrained networks, as `recipes.publish` writes them, and the clients of
hubs, on such a folder."""

import hashlib
import importlib.resources
import os
import types

from helpers import chain
from keras import layers

import keras_ratesnn as rsnn
from keras_ratesnn.models.pretrained import Card


def small(*more):
    """A spiking network with further layers before its neurons."""
    network = chain(*more, rsnn.layers.LIF(), layers.Dense(3), shape=(2,))
    return rsnn.SpikingModel(network, 2)


PRETRAINED = "keras_ratesnn.models.pretrained"
"""The package of the `cards/` and `weights/` that ship."""

PACKAGE = importlib.resources.files(PRETRAINED)
"""Its folder."""


def packaged(monkeypatch, folder):
    """Lets a folder take the place of `PACKAGE`."""

    def files(package):
        return folder if package == PRETRAINED else files_of(package)

    files_of = importlib.resources.files
    monkeypatch.setattr(importlib.resources, "files", files)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_network(
    model,
    folder,
    cards,
    card_file=None,
    name="made",
    architecture="made",
    arguments=None,
):
    """Writes the weights of a model to a folder, and its card to another.

    Args:
        model: A `SpikingModel`.
        folder: Path of the folder of the weights.
        cards: Path of the folder of the card.
        card_file: String, the name of the card's file. Defaults to `None`, NAME.json.
        name: String.
        architecture: String, see `Card`.
        arguments: Dict, see `Card`. Defaults to `None`, none.
    """
    for made in (folder, cards):
        made.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.keras"
    model.save(path)
    Card(
        name=name,
        architecture=architecture,
        arguments=arguments or {},
        preprocessing="Bytes",
        data_set="Noise",
        timesteps=model.timesteps,
        gradient="rate",
        epochs=3,
        seed=7,
        test_accuracy=0.5,
        accuracies={model.timesteps: 0.5},
        test_images=4,
        parameters=model.count_params(),
        backend="jax",
        versions={"keras": "3.15.1"},
        licence="Apache-2.0",
        file=path.name,
        sha256=sha256(path),
        url=None,
    ).write(cards, card_file)


class HuggingFace(types.ModuleType):
    """The part of `huggingface_hub` that is called, on a folder."""

    def __init__(self, folder):
        super().__init__("huggingface_hub")
        self.folder, self.calls, self.created = folder, [], []

    def hf_hub_download(self, repo_id, filename, revision, library_name, dry_run=False):
        self.calls.append((repo_id, filename, revision, dry_run))
        path = self.folder / filename
        if not path.exists():
            raise KeyError(f"no {filename}")
        return (
            types.SimpleNamespace(file_size=path.stat().st_size)
            if dry_run
            else str(path)
        )

    def HfApi(self, library_name):
        def upload_folder(repo_id, folder_path, commit_message):
            self.created.append(
                (repo_id, sorted(path.name for path in folder_path.iterdir()))
            )

        return types.SimpleNamespace(
            create_repo=lambda repo_id, exist_ok: None, upload_folder=upload_folder
        )


class Kaggle(types.ModuleType):
    """The part of `kagglehub` that is called, on a folder."""

    def __init__(self, folder):
        super().__init__("kagglehub")
        self.folder, self.calls, self.created = folder, [], []

    def model_download(self, handle, path):
        self.calls.append((handle, path))
        return str(self.folder / path)

    def model_upload(self, handle, local_model_dir, version_notes):
        self.created.append((handle, sorted(os.listdir(local_model_dir))))
