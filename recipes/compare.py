"""Trains a recipe by every gradient and step mode over several seeds: `python -m recipes.compare digits --seeds 5`."""

import argparse
import dataclasses
import json
import pathlib
import statistics
import sys

import keras

from recipes import catalogue, run

METHODS = [("rate", "multi"), ("rate", "single"), ("bptt", "multi")]


def main(argv=None):
    """Runs the command line `argv`, by default that of the process."""
    parser = argparse.ArgumentParser(prog="python -m recipes.compare", description=__doc__)
    parser.add_argument("recipe", metavar="NAME", help=", ".join(catalogue.RECIPES))
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds 0 to N - 1 (default: 5)")
    parser.add_argument("--epochs", type=int, metavar="N", help="passes over the training images")
    parser.add_argument("--data-dir", type=pathlib.Path, metavar="DIR", help="folder of the data set's files")
    parser.add_argument("--output", type=pathlib.Path, metavar="FILE", help="where to write the records as JSON")
    arguments = parser.parse_args(argv)

    recipe = catalogue.find(arguments.recipe)
    if arguments.epochs is not None:
        recipe = dataclasses.replace(recipe, epochs=arguments.epochs)
    dataset = recipe.load_data(arguments.data_dir)
    print(
        f"{recipe.name}, {keras.backend.backend()}, T = {recipe.timesteps}, {recipe.epochs} epochs, {arguments.seeds} seeds\n"
    )
    print("| gradient | step mode | test accuracy, mean ± std | of each seed | seconds a run, median |")
    print("|---|---|---|---|---|", flush=True)
    records = []
    for gradient, step_mode in METHODS:
        of_method = []
        for seed in range(arguments.seeds):
            chosen = dataclasses.replace(recipe, gradient=gradient, step_mode=step_mode, seed=seed)
            of_method.append(run.fit(run.build(chosen, dataset), chosen, dataset, verbose=0))
        print(table_row(gradient, step_mode, of_method), flush=True)
        records += of_method
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(records, indent=1) + "\n")
    return 0


def table_row(gradient, step_mode, records):
    accuracies = [record["test_accuracy"] for record in records]
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    listed = ", ".join(f"{accuracy:.4f}" for accuracy in accuracies)
    seconds = statistics.median(record["seconds"] for record in records)
    return f"| {gradient} | {step_mode} | {statistics.mean(accuracies):.4f} ± {spread:.4f} | {listed} | {seconds:.0f} |"


if __name__ == "__main__":
    sys.exit(main())
