"""Tables of the results of runs: `python -m recipes.compare.results` writes the
committed results into the documents.

`python -m recipes.compare.results RUN [RUN ...]` first adds the results of finished
runs to the committed ones.
"""

import csv
import io
import itertools
import json
import pathlib
import re
import statistics

from recipes import command_line, markdown, methods
from recipes.atomic_files import read_lines, writing
from recipes.run_folder import RunFolder, complete, test_score
from recipes.settings import DEFAULTS

RECIPES = pathlib.Path(__file__).parent.parent
FOLDER = RECIPES / "results"
"""A file for each recipe, NAME.jsonl, with a result on each line."""

TABLE = "table.csv"
"""The file in `FOLDER` with a row for all seeds of the same settings, as GitHub shows
it."""

PAGES = (RECIPES.parent / "docs" / "results.md", RECIPES.parent / "docs" / "tasks.md")

PLACE = re.compile(
    r"(?P<begin><!-- results of (?:(?P<tasks>tasks)|(?P<name>\w+)"
    r"(?P<wanted>(?:, \w+=[\w.|]+)*)): made by python -m recipes.compare.results "
    r"-->\n\n)"
    r"(?:(?!<!-- results).)*?(?P<end><!-- end of results -->)",
    re.DOTALL,
)
"""Places of tables in a page, each the beginning of a comment: "results of digits,
epochs=10, step_mode=single|multi" a short table of a recipe with these settings, where
`|` separates alternatives; "results of tasks" one of spiking networks with several
numbers of time steps beside ordinary ones, of recipes that do not classify.
"""

COLUMNS = (
    "recipe",
    "gradient",
    "step mode",
    "T",
    "epochs",
    "training images",
    "augmentation",
    "backend",
    "training accuracy, epoch 1",
    "last epoch",
    "test accuracy",
    "of each seed",
    "s per epoch",
    "peak memory, MiB",
    "device",
)
IN_SHORT = ("gradient", "test accuracy")
SHUFFLED = "shuffled in time"
"""The column of what `recipes.compare.shuffled` measured, in short tables of runs for
which it did."""

ADDED = dict(DEFAULTS)
"""The values by which settings do nothing, as in earlier versions, whose results lack
them."""
del ADDED["restart_at"]  # It was that of the recipe.

REMOVED = ("freeze_normalization",)
"""Settings that only results of earlier versions have."""

IN_WORDS = {
    "levels": "{} levels",
    "weights": "{} weights",
    "normalization": "{} normalization",
    "temporal": "with {}",
    "branches": "{} branches",
    "step_distillation": "with step distillation {}",
    "random_timesteps": "random T {}",
    "one_step_epochs": "{} epochs with T=1",
    "two_window_epochs": "{} epochs with 2 windows",
    "initial_membrane": "from membranes of {}",
    "teacher_weight": "with teacher",
    "teachers": "{}",
    "start_from": "from {}",
}
"""The words for a setting in the name of a method."""

ORDER = (
    "name",
    "epochs",
    "augment",
    "normalization",
    "temporal",
    "levels",
    "timesteps",
    "gradient",
    "windows",
    "step_mode",
)
"""Settings by which rows are sorted."""


def add_arguments(parser):
    command_line.add_path(
        parser, "runs", "folders of finished runs to add", "RUN", nargs="*"
    )


def write(arguments):
    with command_line.mistakes(), complete("a result"):
        for run in arguments.runs:
            add(RunFolder(run))
        records = committed()
        (FOLDER / TABLE).write_text(whole_table(records))
        for page in PAGES:
            page.write_text(with_tables(page.read_text(), records))
    names = " and ".join(map(str, (FOLDER / TABLE, *PAGES)))
    print(f"{len(records)} results in the tables of {names}")


def committed():
    """The records of all committed results."""
    records = []
    for path in sorted(FOLDER.glob("*.jsonl")):
        records += read_lines(path)
    return records


def add(folder):
    """Adds the result of a finished run to the committed ones, instead of one of the
    same settings, if there is one.

    Raises:
        FileNotFoundError: If the run is not finished.
        ValueError: If it diverged, was not tested on the test images, or has no place
            in the tables.
    """
    record = folder.read_test_result()
    settings = record["settings"]
    is_scored = "comparison" in record or "test_accuracy" in record
    if settings.get("ordinary") == "only" or not is_scored or "curve" not in record:
        raise ValueError(
            f"The result of {settings['name']} in {folder.path} has no place in the "
            "tables. They are of spiking networks, with the curve that python -m "
            "recipes.train writes; those that do not classify are beside ordinary "
            "ones, so train them with --set ordinary=beside or ordinary=first."
        )
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{settings['name']}.jsonl"
    own = identity(record)
    rest = [earlier for earlier in read_lines(path) if identity(earlier) != own]
    lines = [json.dumps(one, allow_nan=False) for one in (*rest, record)]
    with writing(path) as part:
        part.write_text("\n".join(lines) + "\n")


def identity(record):
    """The key of a result: of two with the same one, the later replaces the earlier."""
    return settings_of(record), record["backend"], record["train_images"]


def settings_of(record):
    """The settings of a result, as if this version had written it."""
    settings = {**ADDED, **record["settings"]}
    return {key: value for key, value in settings.items() if key not in REMOVED}


def with_tables(page, records):
    """The text of a page with updated tables of these records."""
    return PLACE.sub(
        lambda place: f"{place['begin']}{_table_at(place, records)}\n\n{place['end']}",
        page,
    )


def _table_at(place, records):
    """The table for a match of `PLACE`."""
    classifiers = list(filter(_classifies, records))
    if place["tasks"]:
        rest = itertools.filterfalse(_classifies, records)
        return task_table([record for record in rest if "comparison" in record])
    wanted = dict(pair.split("=") for pair in place["wanted"].split(", ")[1:])
    wanted["name"] = place["name"]
    chosen = [record for record in classifiers if _has(settings_of(record), wanted)]
    return table(chosen, _short_columns(chosen))


def _classifies(record):
    return record.get("score", "accuracy") == "accuracy"


def _short_columns(records):
    """The columns of a short table: those in which its rows can differ."""
    columns = list(IN_SHORT)
    for setting, column in (("step_mode", "step mode"), ("timesteps", "T")):
        if len({record["settings"][setting] for record in records}) > 1:
            columns.insert(1, column)
    if any("shuffled_accuracy" in record for record in records):
        columns.append(SHUFFLED)
    return columns


def _has(settings, wanted):
    return all(
        str(settings[name]) in values.split("|") for name, values in wanted.items()
    )


def method_name(settings, space):
    """The training method: the gradient, the levels of integer spikes, the
    normalisation if it is not "batch", its teachers."""
    parts = [methods.gradient_name(settings, space)]
    for name, words in IN_WORDS.items():
        value = settings.get(name)
        if not value or value == ADDED[name]:
            continue
        if name == "random_timesteps":
            value = "to".join(map(str, value))
        value = re.sub("[_,]", space, str(value))
        parts += [part.format(value) for part in words.split()]
    return space.join(parts)


def whole_table(records):
    """The rows of all classifiers, as text with commas between the cells."""
    text = io.StringIO()
    rows = _rows(filter(_classifies, records), COLUMNS)
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    return text.getvalue()


def table(records, columns=COLUMNS):
    """A Markdown table of run records: one row for all seeds of the same settings, with
    mean ± standard deviation."""
    return markdown.table(columns, _rows(records, columns))


def _rows(records, columns):
    groups = itertools.groupby(sorted(records, key=_place_in_table), key=_same_but_seed)
    for _, group in groups:
        cells = _row(list(group))
        yield [cells[column] for column in columns]


def _place_in_table(record):
    settings = settings_of(record)
    values = [settings[name] for name in ORDER]
    values += [*_same_but_seed(record), settings["seed"]]
    return [_sortable(value) for value in values]


def _sortable(value):
    """Numbers in their order, before what is none."""
    return (0, value, "") if isinstance(value, (int, float)) else (1, 0, str(value))


def _same_but_seed(record):
    settings = settings_of(record)
    del settings["seed"]
    return (
        *(settings[name] for name in sorted(settings)),
        record["backend"],
        record["device"],
        record["train_images"],
    )


def _row(records):
    """The cells of the runs with the same settings, by the names of their columns."""
    first, settings = records[0], settings_of(records[0])
    start = ", from ordinary weights" if settings["ordinary"] == "first" else ""
    scores = [test_score(record) for record in records]
    shuffled = [
        record["shuffled_accuracy"]
        for record in records
        if "shuffled_accuracy" in record
    ]
    curves = [record["curve"]["accuracy"] for record in records]
    first_epoch = statistics.mean(curve[0] for curve in curves)
    last_epoch = statistics.mean(curve[-1] for curve in curves)
    seconds = statistics.median(record["seconds_per_epoch"] for record in records)
    memory = statistics.median(record["peak_memory_mib"] for record in records)
    return {
        "recipe": settings["name"],
        "gradient": method_name(settings, " ") + start,
        "step mode": settings["step_mode"],
        "T": settings["timesteps"],
        "epochs": settings["epochs"],
        "training images": f"{first['train_images']:,}",
        "augmentation": settings["augment"],
        "backend": first["backend"],
        "training accuracy, epoch 1": f"{first_epoch:.3f}",
        "last epoch": f"{last_epoch:.3f}",
        "test accuracy": markdown.mean_of(scores),
        "of each seed": ", ".join(f"{score:.4f}" for score in scores),
        SHUFFLED: markdown.mean_of(shuffled) if shuffled else "",
        "s per epoch": f"{seconds:.1f}",
        "peak memory, MiB": f"{memory:.0f}",
        "device": first["device"],
    }


def task_table(records):
    """A Markdown table of spiking networks with several numbers of time steps beside
    ordinary ones: a row for each score."""
    numbers = {
        int(number) for record in records for number in record["comparison"]["spiking"]
    }
    timesteps = sorted(numbers)
    rows = []
    for record in records:
        settings, compared = record["settings"], record["comparison"]
        start = {"first": "", "beside": ", from scratch"}[settings["ordinary"]]
        run = [
            settings["name"],
            method_name(settings, " ") + start,
            settings["epochs"],
            f"{record['train_images']:,}",
        ]
        scores = [compared["ordinary"]]
        scores += [compared["spiking"].get(str(number), {}) for number in timesteps]
        for name in compared["ordinary"]:
            if not name.endswith("loss"):
                cells = [f"{own[name]:.4f}" if name in own else "" for own in scores]
                rows.append([*run, name.replace("_", " "), *cells])
    columns = ["recipe", "gradient", "epochs", "training images", "test score"]
    columns += ["ordinary", *(f"T = {number}" for number in timesteps)]
    return markdown.table(columns, rows)


main = command_line.command(__name__, "compare.results", __doc__, add_arguments, write)
