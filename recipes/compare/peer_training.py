"""The training of a recipe in another library: the same network, weights, batches and
optimizer, by that library's BPTT."""

import dataclasses
import itertools
import math
import types

import keras
import numpy as np
import torch

from recipes import batches as recipe_batches
from recipes import device, optimizers, run
from recipes.benchmark import peers
from recipes.benchmark.settings import PEERS
from recipes.benchmark.translated import Translated
from recipes.run_folder import this_part


class RecipeOptimizer:
    """The optimizer of a recipe, with its schedule, for the parameters of a module of
    PyTorch.

    Args:
        module: A PyTorch module.
        recipe: A `Recipe`.
        steps: Integer, the number of steps in which the learning rate decays to 0.
    """

    def __init__(self, module, recipe, steps):
        self.parameters = list(module.parameters())
        # Keras' variables of the same memory. Kernels, which decay, are all that has
        # several axes.
        names = (
            "kernel" if parameter.ndim > 1 else "vector"
            for parameter in self.parameters
        )
        self.variables = [
            keras.Variable(parameter, name=name)
            for parameter, name in zip(self.parameters, names, strict=True)
        ]
        owner = types.SimpleNamespace(trainable_variables=self.variables)
        self.optimizer = optimizers.build(recipe, owner, steps)
        self.optimizer.build(self.variables)

    def zero_grad(self):
        for parameter in self.parameters:
            parameter.grad = None

    def step(self):
        self.optimizer.apply([parameter.grad for parameter in self.parameters])


def trainer(recipe, dataset, method):
    """A `peers.Trainer` of the network of a recipe, which starts with the weights that
    the recipe's own training starts with.

    Args:
        recipe: A `Recipe` of images, or of masked sequences.
        dataset: The `Dataset` for training.
        method: A name of `PEERS`.

    Raises:
        AssertionError: If a step of the network is not the work of a step of ours by
            BPTT.
    """
    # In eager mode, since the operations of a compiled graph cannot be counted.
    ours = run.build(dataclasses.replace(recipe, jit_compile=False), dataset)
    some = tensors((dataset.train_images[:2], dataset.train_labels[:2]))
    network = Translated(ours, PEERS[method].package).to(some[0].device)
    peers.check_equal_work(ours, network, some, recipe.precision)
    steps = recipe.epochs * run.steps_per_epoch(recipe, dataset)
    optimizer = RecipeOptimizer(network, recipe, steps)
    return peers.Trainer(network, recipe.precision, optimizer)


def tensors(batch):
    """A batch of a recipe's pipeline as tensors for a peer."""
    where = "cuda" if device.gpu() else "cpu"
    images, labels = (torch.as_tensor(np.array(part)).to(where) for part in batch)
    return images, labels.to(torch.int64)


def train(recipe, dataset, method, path):
    """Trains a recipe; returns its record, without its settings.

    Args:
        recipe: A `Recipe`.
        dataset: Its `Dataset`.
        method: A name of `PEERS`.
        path: Path of the folder of the run, for messages.

    Raises:
        Diverged: If a loss is not finite.
    """
    made = trainer(recipe, dataset, method)
    steps = run.steps_per_epoch(recipe, dataset)
    batches = iter(recipe_batches.training_batches(dataset, recipe))
    curve: dict = {"loss": [], "test_accuracy": []}
    for epoch in range(recipe.epochs):
        # Of dropout.
        seed = np.random.SeedSequence((recipe.seed, epoch)).generate_state(1)[0]
        torch.manual_seed(int(seed))
        losses = []
        for batch in itertools.islice(batches, steps):
            losses.append(made.train_on_batch(*tensors(batch)))
            if not math.isfinite(losses[-1]):
                rate = float(made.optimizer.optimizer.learning_rate)
                raise run.Diverged("loss", losses[-1], epoch + 1, rate)
        score = accuracy(made.network, recipe, dataset)
        curve["loss"].append(float(np.mean(losses)))
        curve["test_accuracy"].append(score)
        done = f"{path}: epoch {epoch + 1} of {recipe.epochs}"
        print(f"{done}, test accuracy {score:.4f}", flush=True)
    return {
        **this_part(),
        "versions": device.versions((PEERS[method].package,)),
        "score": "accuracy",
        "train_images": dataset.train_size,
        "test_accuracy": curve["test_accuracy"][-1],
        "curve": curve,
    }


def accuracy(network, recipe, dataset):
    """The accuracy of a module of PyTorch on the test images."""
    network.eval()
    with torch.no_grad():
        pairs = map(tensors, recipe_batches.evaluation_batches(dataset, recipe))
        correct = sum(
            int((network(images).argmax(-1) == labels).sum())
            for images, labels in pairs
        )
    network.train()
    return correct / dataset.test_size
