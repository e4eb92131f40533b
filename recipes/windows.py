"""How near the gradient of windows of time is to BPTT's, layer by layer: `python -m recipes.windows digits`.

A row a choice of windows, a column a kernel, from the first layer to the last: the cosine between the kernel's gradient and
that of backpropagation through time, and in the last column the ratio of the norms of all kernels' gradients. It takes one
batch of training images, without augmentation, and initial weights or those of a run.
"""

import argparse
import pathlib
import sys

import keras
import numpy as np
from keras import ops

from keras_ratesnn import gradients
from recipes import catalogue, device, run
from recipes.checkpoint import load_model
from recipes.command_line import USER_MISTAKE
from recipes.evaluate import recipe_of
from recipes.run_folder import RunFolder


def main(argv=None):
    """Runs the command line `argv`, by default that of the process; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m recipes.windows", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("recipe", metavar="NAME", help="name of a recipe, or folder of one of its runs for trained weights")
    parser.add_argument("--images", type=int, default=128, metavar="N", help="size of the batch (default: 128)")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="as in recipes.train")
    parser.add_argument("--data-dir", type=pathlib.Path, metavar="DIR", help="folder of the data set's files")
    arguments = parser.parse_args(argv)
    folder = RunFolder(pathlib.Path(arguments.recipe))
    try:
        trained = folder.settings.exists()
        recipe = (recipe_of(folder) if trained else catalogue.find(arguments.recipe)).with_settings(arguments.set)
        device.set_precision(recipe.precision)
        dataset = recipe.load(arguments.data_dir)
        model = load_model(folder.last) if trained else run.build(recipe, dataset)
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_MISTAKE
    images, labels = dataset.train_images[: arguments.images], dataset.train_labels[: arguments.images]
    print(table(model, images, labels))
    return 0


def choices(timesteps):
    """Windows worth comparing: one to T, the first steps by themselves, and two equal halves."""
    halves = (timesteps // 2, timesteps - timesteps // 2)
    return [*range(1, min(timesteps, 4)), *([halves] if timesteps > 2 else []), timesteps]


def table(model, images, labels):
    """A Markdown table of cosines, for a `SpikingModel` and a batch."""
    model.gradient = "bptt"
    by_bptt = kernel_gradients(model, images, labels)
    lines = [f"| windows | {' | '.join(by_bptt)} | norm ratio |", "|---" * (len(by_bptt) + 2) + "|"]
    for windows in choices(model.timesteps):
        model.gradient = gradients.Rate(windows=windows)
        found = kernel_gradients(model, images, labels)
        cosines = [_cosine(found[name], by_bptt[name]) for name in by_bptt]
        ratio = _norm(found) / _norm(by_bptt)
        lines.append(f"| {windows} | {' | '.join(f'{cosine:.3f}' for cosine in cosines)} | {ratio:.2f} |")
    return "\n".join(lines)


def kernel_gradients(model, images, labels):
    """The gradients of a batch by the kernels of a model, which is left as it was: a dict of layer names to arrays."""
    before = model.get_weights()
    # On every backend a step of plain descent, of rate 1, is the gradient.
    model.compile(keras.optimizers.SGD(1.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    kernels = {variable.path.split("/")[-2]: variable for variable in model.trainable_variables if variable.name == "kernel"}
    start = {name: _array(kernel) for name, kernel in kernels.items()}
    model.train_on_batch(images, labels)
    found = {name: start[name] - _array(kernel) for name, kernel in kernels.items()}
    model.set_weights(before)
    return found


def _array(variable):
    return np.array(ops.convert_to_numpy(variable.value), "float64")


def _cosine(left, right):
    return float(np.sum(left * right) / (np.linalg.norm(left) * np.linalg.norm(right)))


def _norm(arrays):
    return np.sqrt(sum(np.sum(array**2) for array in arrays.values()))


if __name__ == "__main__":
    sys.exit(main())
