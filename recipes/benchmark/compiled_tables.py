"""Memory plans of the paper's networks on an H100 and on TPUs: `python -m
recipes.benchmark.compiled_tables`.

Each program is compiled by `recipes.benchmark.compiled` in a process of its own. What
the file of results has is not compiled again; `--show` compiles nothing, prints the
tables of what there is, and draws memory against T.
"""

import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from recipes import command_line, markdown
from recipes.atomic_files import read_json, read_lines
from recipes.benchmark.compiled import MIB

RESULTS = pathlib.Path(__file__).parents[1] / "results" / "compiled" / "programs.jsonl"
FIGURE = "compiled.png"

METHODS = (
    "rate-multi",
    "rate-single",
    "rate-multi-2",
    "bptt-multi",
    "bptt-recompute",
    "ordinary",
)

NETWORKS = {
    "cifar10_resnet18": "",
    "cifar10_resnet19": "",
    "cifar10_vgg11": "",
    "cifar10_dvs_vggsnn": "",
    "cifar10_maxformer": "",
    "imagenet_sew_resnet34": "--batch-size 64",
    "imagenet_preact_resnet34": "--batch-size 64",
}
"""Recipes of the paper and of a transformer, with the samples on one device where the
recipe has those of several."""

TWO = ("cifar10_resnet18", "imagenet_sew_resnet34")
"""Networks for the tables of precisions and numbers of devices."""

ONE_OF_EACH_KIND = ("digits", "cifar10_vgg11", "cifar10_resnet18", "cifar10_maxformer")


def _lines(target, networks, methods=("rate-multi",), options=""):
    """Command lines of `recipes.benchmark.compiled`, without superfluous spaces."""
    return [
        " ".join(f"{target} {name} --method {method} {each} {options}".split())
        for name in networks
        for each in [NETWORKS.get(name, "")]
        for method in methods
    ]


def _many(target, devices):
    """Command lines for the networks of `TWO`, with 64 samples on each device."""
    settings = f"--method rate-multi --batch-size 64 --devices {devices}"
    return [f"{target} {name} {settings}" for name in TWO]


AGAINST_T = [
    line
    # The recipe's T is 4.
    for options in ("", "--timesteps 8", "--timesteps 16")
    for line in _lines("h100", TWO[:1], METHODS[:-1], options)
]

TABLES = {
    "One H100, float32": _lines("h100", NETWORKS, METHODS),
    "ResNet-18 against T, one H100, float32": AGAINST_T,
    "One H100, mixed_bfloat16": _lines(
        "h100", TWO, METHODS, "--precision mixed_bfloat16"
    ),
    "8 and 256 H100": [*_many("h100", 8), *_many("h100", 256)],
    "One TPU v5e": _lines("tpu-v5e", ONE_OF_EACH_KIND),
    "16 TPU v5e": _many("tpu-v5e", 16),
}
"""Command lines of each table."""

COLUMNS = (
    "network, T",
    "method",
    "samples, devices",
    "temporary, MiB",
    "arguments, MiB",
    "TFLOP",
    "GB",
    "launches",
    "loops",
    "exchanges",
    "exchanged, MiB",
)


def add_arguments(parser):
    command_line.add_results(parser, RESULTS, FIGURE)


def run(arguments):
    with command_line.mistakes():
        found = {record["command"]: record for record in read_lines(arguments.output)}
        if not arguments.show:
            for line in dict.fromkeys(itertools.chain(*TABLES.values())):
                if line not in found and (record := _compiled(line)):
                    found[line] = record
                    with arguments.output.open("a") as file:
                        file.write(json.dumps(record) + "\n")
    print(report(found))
    if arguments.show:
        from recipes import plots

        plots.save(figure(found), arguments.output.with_name(FIGURE), dpi=90)


def _compiled(line):
    """The record of a command line, or `None` if it failed."""
    print(line, file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "recipes.benchmark.compiled", *line.split()]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "record.json")
        environment = {**os.environ, "KERAS_BACKEND": "jax"}
        ended = subprocess.run(
            [*command, "--output", str(path)],
            env=environment,
            stdout=subprocess.DEVNULL,
            check=False,
        )
        return None if ended.returncode else {"command": line, **read_json(path)}


def report(found):
    """The tables of the records that were found, as Markdown."""
    parts = []
    for title, lines in TABLES.items():
        if rows := [_cells(found[line]) for line in lines if line in found]:
            parts.append(f"{title}:\n\n{markdown.table(COLUMNS, rows)}")
    return "\n\n".join(parts)


def _cells(record):
    """The cells of a record, as in `COLUMNS`."""
    steps = f", {record['timesteps']}" if record["timesteps"] else ""
    what = [
        f"{record['model']}{steps}",
        _short(record["method"]),
        f"{record['batch_size']} x {record['devices']}",
    ]
    if "compiler_says" in record:
        return [*what, "does not fit", *[""] * (len(COLUMNS) - len(what) - 1)]
    kinds = record["exchanges"]
    return [
        *what,
        f"{record['temporary_mib']:,.0f}" + ("" if record["fits"] else ": not fit"),
        f"{record['argument_mib']:,.0f}",
        "" if record["flops"] is None else f"{record['flops'] / 1e12:.2f}",
        f"{record['bytes'] / 1e9:.1f}",
        record["launches"],
        record["loops"],
        ", ".join(f"{count} {kind}" for kind, count in kinds.items()),
        f"{record['exchanged_bytes'] / MIB:.0f}" if kinds else "",
    ]


def _short(method):
    """The name of a method without that of a module."""
    return method.rpartition(":")[2]


def figure(found):
    """Temporary memory against T, by method."""
    from recipes import methods, plots

    result = plots.new_figure(5, 3.5)
    axes = result.subplots()
    for index, method in enumerate(METHODS[:-1]):
        records = [found[line] for line in AGAINST_T if line in found]
        records = [record for record in records if record["method"] == method]
        axes.plot(
            [record["timesteps"] for record in records],
            [record["temporary_mib"] / 1024 for record in records],
            label=methods.in_words(_short(method)),
            **plots.style(index),
        )
    axes.set_xticks([4, 8, 16])
    axes.set_ylim(bottom=0)
    axes.set_ylabel("temporary memory, GiB")
    plots.dress(
        axes,
        "ResNet-18, batch 128, compiled for an H100, not run",
        "time steps T",
        legend="upper left",
    )
    return result


main = command_line.command(
    __name__, "benchmark.compiled_tables", __doc__, add_arguments, run
)
