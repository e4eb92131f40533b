"""Tables of the results of runs: `python -m recipes.results` writes that of the committed ones into recipes/README.md.

`python -m recipes.results RUN [RUN ...]` copies the results of finished runs to the committed ones first.
"""

import argparse
import itertools
import pathlib
import shutil
import statistics
import sys

from recipes.command_line import USER_MISTAKE
from recipes.run_folder import RunFolder, read_json

FOLDER = pathlib.Path(__file__).parent / "results"
PAGE = pathlib.Path(__file__).parent / "README.md"
BEGIN, END = "<!-- results: made by python -m recipes.results -->", "<!-- end of results -->"

COLUMNS = (
    "recipe",
    "gradient",
    "step mode",
    "T",
    "epochs",
    "training images",
    "backend",
    "test accuracy",
    "of each seed",
    "s per epoch",
    "peak memory, MiB",
    "device",
)


def main(argv=None):
    """Runs the command line `argv`, by default that of the process; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m recipes.results", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=pathlib.Path, metavar="RUN", help="folders of finished runs to add")
    arguments = parser.parse_args(argv)
    try:
        for run in arguments.runs:
            add(RunFolder(run))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_MISTAKE
    records = [read_json(path) for path in sorted(FOLDER.glob("*.json"))]
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(records)}\n\n{END}{after}")
    print(f"{len(records)} results in the table of {PAGE}")
    return 0


def add(folder):
    """Copies the result of a finished run to the committed ones.

    Raises:
        FileNotFoundError: If the run is not finished.
        ValueError: If it diverged.
    """
    record = folder.read_result()
    if record["test_accuracy"] is None:
        raise ValueError(f"The run in {folder.path} diverged: {record['diverged']['message']}. It has no place in the table.")
    settings = record["settings"]
    parts = [settings["name"], record["backend"], _method(settings, "-"), settings["step_mode"], f"T{settings['timesteps']}"]
    parts += [f"{settings['epochs']}epochs", f"{record['train_images']}images", f"seed{settings['seed']}"]
    FOLDER.mkdir(exist_ok=True)
    shutil.copyfile(folder.result, FOLDER / f"{'-'.join(parts)}.json")


def _method(settings, space):
    """The training method, and its windows of time if there are several."""
    windows = settings.get("windows", 1)
    if windows == 1:
        return settings["gradient"]
    sizes = "+".join(map(str, windows)) if isinstance(windows, (list, tuple)) else windows
    return f"{settings['gradient']}{space}{sizes}{space}windows"


def table(records):
    """A Markdown table of run records: one row for the seeds of the same settings, accuracies as mean ± standard deviation."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    records = sorted(records, key=lambda record: (*map(str, _same_but_seed(record)), record["settings"]["seed"]))
    for _, group in itertools.groupby(records, key=_same_but_seed):
        lines.append("| " + " | ".join(_row(list(group))) + " |")
    return "\n".join(lines)


def _same_but_seed(record):
    settings = {key: value for key, value in record["settings"].items() if key != "seed"}
    return (*{"windows": 1, **settings}.values(), record["backend"], record["device"], record["train_images"])


def _row(records):
    settings = records[0]["settings"]
    accuracies = [record["test_accuracy"] for record in records]
    spread = f" ± {statistics.stdev(accuracies):.4f}" if len(accuracies) > 1 else ""
    return (
        settings["name"],
        _method(settings, " "),
        settings["step_mode"],
        str(settings["timesteps"]),
        str(settings["epochs"]),
        f"{records[0]['train_images']:,}",
        records[0]["backend"],
        f"{statistics.mean(accuracies):.4f}{spread}",
        ", ".join(f"{accuracy:.4f}" for accuracy in accuracies),
        f"{statistics.median(record['seconds_per_epoch'] for record in records):.1f}",
        f"{statistics.median(record['peak_memory_mib'] for record in records):.0f}",
        records[0]["device"],
    )


if __name__ == "__main__":
    sys.exit(main())
