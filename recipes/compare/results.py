"""Tables of the results of runs: `python -m recipes.compare.results` writes the committed results into the documents.

`python -m recipes.compare.results RUN [RUN ...]` first adds the results of finished runs to the committed ones.
"""

import argparse
import itertools
import pathlib
import re
import shutil
import statistics
import sys

from recipes.command_line import USER_MISTAKE
from recipes.run_folder import RunFolder, read_json, test_score

RECIPES = pathlib.Path(__file__).parent.parent
FOLDER = RECIPES / "results"
PAGES = (RECIPES / "README.md", RECIPES.parent / "docs" / "results.md", RECIPES.parent / "docs" / "tasks.md")

PLACE = re.compile(
    r"(<!-- results(?: of (?P<name>\w+), (?P<epochs>\d+) epochs|(?P<tasks> of tasks))?: "
    r"made by python -m recipes.compare.results -->\n\n)"
    r".*?(\n\n<!-- end of results -->)",
    re.DOTALL,
)
"""Places of tables in a page: of all classifiers, a short table for one recipe and number of epochs, or of other tasks."""

COLUMNS = (
    "recipe",
    "gradient",
    "step mode",
    "T",
    "epochs",
    "training images",
    "augmentation",
    "backend",
    "test accuracy",
    "of each seed",
    "s per epoch",
    "peak memory, MiB",
    "device",
)
IN_SHORT = ("gradient", "step mode", "augmentation", "test accuracy", "of each seed")


def main(argv=None):
    """Runs the command line `argv`, by default `sys.argv`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m recipes.compare.results", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=pathlib.Path, metavar="RUN", help="folders of finished runs to add")
    arguments = parser.parse_args(argv)
    try:
        for run in arguments.runs:
            add(RunFolder(run))
        records = committed()
        for page in PAGES:
            page.write_text(with_tables(page.read_text(), records))
    except KeyError as error:
        print(f"error: a result lacks {error}: it does not belong to a run of this version.", file=sys.stderr)
        return USER_MISTAKE
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_MISTAKE
    print(f"{len(records)} results in the tables of {' and '.join(map(str, PAGES))}")
    return 0


def committed():
    """The records of all committed results."""
    return [read_json(path) for path in sorted(FOLDER.glob("*.json"))]


def with_tables(page, records):
    """The text of a page with updated tables of these records."""

    classifiers = [record for record in records if "comparison" not in record]

    def written(place):
        if place["tasks"]:
            return place[1] + task_table([record for record in records if "comparison" in record]) + place[5]
        if place["name"] is None:
            return place[1] + table(classifiers) + place[5]
        wanted = place["name"], int(place["epochs"])
        chosen = [record for record in classifiers if (record["settings"]["name"], record["settings"]["epochs"]) == wanted]
        return place[1] + table(chosen, IN_SHORT) + place[5]

    return PLACE.sub(written, page)


def add(folder):
    """Adds the result of a finished run to the committed ones.

    Raises:
        FileNotFoundError: If the run is not finished.
        ValueError: If it diverged or was not tested on the test images.
    """
    record = folder.read_test_result()
    settings = record["settings"]
    if "comparison" not in record and "test_accuracy" not in record:
        raise ValueError(
            f"The result of {settings['name']} in {folder.path} has no comparison with the ordinary network. Train it with "
            "--set ordinary=beside or ordinary=first."
        )
    ordinary = settings.get("ordinary", "no")
    parts = [
        settings["name"] if ordinary == "no" else f"{settings['name']}-{ordinary}",
        record["backend"],
        method_name(settings, "-"),
        settings["step_mode"],
        f"T{settings['timesteps']}",
    ]
    parts += [f"{settings['epochs']}epochs", f"{record['train_images']}images", f"seed{settings['seed']}"]
    FOLDER.mkdir(exist_ok=True)
    shutil.copyfile(folder.result, FOLDER / f"{'-'.join(parts)}.json")


def method_name(settings, space):
    """The training method: the gradient, its windows or random steps, and the normalisation if it is not "batch"."""
    parts = [settings["gradient"]]
    windows = settings.get("windows", 1)
    if windows != 1:
        parts += ["+".join(map(str, windows)) if isinstance(windows, (list, tuple)) else str(windows), "windows"]
    if settings.get("random_steps"):
        parts += [str(settings["random_steps"]), "random", "steps"]
    if settings.get("normalization", "batch") != "batch":
        parts += [settings["normalization"], "normalization"]
    return space.join(parts)


def table(records, columns=COLUMNS):
    """A Markdown table of run records: one row for all seeds of the same settings, with mean ± standard deviation."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    records = sorted(records, key=lambda record: (*map(str, _same_but_seed(record)), record["settings"]["seed"]))
    for _, group in itertools.groupby(records, key=_same_but_seed):
        cells = dict(zip(COLUMNS, _row(list(group)), strict=True))
        lines.append("| " + " | ".join(cells[column] for column in columns) + " |")
    return "\n".join(lines)


def task_table(records):
    """A Markdown table of spiking networks with several numbers of time steps beside ordinary ones: a row for each score."""
    timesteps = sorted({int(number) for record in records for number in record["comparison"]["spiking"]})
    columns = ("recipe", "start", "epochs", "training images", "backend", "seed", "test score", "ordinary")
    columns += tuple(f"T = {number}" for number in timesteps)
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for record in records:
        settings, compared = record["settings"], record["comparison"]
        start = {"first": "ordinary weights", "beside": "scratch"}[settings["ordinary"]]
        run = [settings["name"], start, str(settings["epochs"]), f"{record['train_images']:,}", record["backend"]]
        for name in [name for name in compared["ordinary"] if not name.endswith("loss")]:
            found = [compared["ordinary"], *(compared["spiking"].get(str(number), {}) for number in timesteps)]
            cells = [f"{scores[name]:.4f}" if name in scores else "" for scores in found]
            lines.append("| " + " | ".join([*run, str(settings["seed"]), name.replace("_", " "), *cells]) + " |")
    return "\n".join(lines)


def _same_but_seed(record):
    # Results of earlier versions lack settings that were added later.
    added = {"windows": 1, "random_steps": None, "normalization": "batch", "held_out": None}
    added |= {"ordinary": "no", "optimizer": "sgd", "image_side": None}
    added |= {"freeze_normalization": False}
    settings = {**added, **record["settings"]}
    del settings["seed"]
    return (*settings.values(), record["backend"], record["device"], record["train_images"])


def _row(records):
    settings = records[0]["settings"]
    accuracies = [test_score(record) for record in records]
    spread = f" ± {statistics.stdev(accuracies):.4f}" if len(accuracies) > 1 else ""
    return (
        settings["name"],
        method_name(settings, " "),
        settings["step_mode"],
        str(settings["timesteps"]),
        str(settings["epochs"]),
        f"{records[0]['train_images']:,}",
        settings["augment"],
        records[0]["backend"],
        f"{statistics.mean(accuracies):.4f}{spread}",
        ", ".join(f"{accuracy:.4f}" for accuracy in accuracies),
        f"{statistics.median(record['seconds_per_epoch'] for record in records):.1f}",
        f"{statistics.median(record['peak_memory_mib'] for record in records):.0f}",
        records[0]["device"],
    )


if __name__ == "__main__":
    sys.exit(main())
