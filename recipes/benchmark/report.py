"""The record of a benchmark as Markdown."""

from recipes import markdown as markdown_tables
from recipes import plots
from recipes.benchmark.settings import FLOOR, FORWARD, ORDINARY, PEERS
from recipes.benchmark.timing import with_quartiles

MISSING = "not counted"

EXPLANATION = (
    "docs/performance.md, Measuring, explains floor, ordinary, forward and "
    "compile time."
)

SNNTORCH = """\
snntorch: its neurons subtract the threshold one step later than ours, and batch
normalisation sees one step at a time. The layers are the same, but not the results."""

EAGER = "spikingjelly and snntorch run in eager mode for any jit_compile."

MEMOPT = """\
spikingjelly-memopt: SpikingJelly with its memory optimisation, level 1 on all residual
blocks. It stores the inputs of blocks, spikes as bits, and computes blocks again in the
backward pass. The gradient is that of spikingjelly."""


def markdown(record):
    """The record as text: setup, tables of methods against T, and explanations."""
    settings, rows = record["settings"], record["rows"]
    jit_compile = " and ".join(map(str, record["jit_compile"]))
    threads = "" if settings["threads"] is None else f", threads={settings['threads']}"
    versions = ", ".join(
        f"{name} {version}" for name, version in record["versions"].items()
    )
    tables = {
        f"Time of a step, ms: median of {settings['rounds']} interleaved rounds "
        "(quartiles)": (lambda row: with_quartiles(row["seconds"], 1000, 1)),
        "Images per second": lambda row: f"{row['images_per_second']:.1f}",
        "Time, ratio to the floor: median (quartiles)": lambda row: with_quartiles(
            row["ratio_to_floor"], 1, 2
        ),
        f"GFLOP of a step (ratio to the floor): {record['flops_measure']}": (
            lambda row: _with_other(row["flops"], 1e9, 2, row["flops_to_floor"])
        ),
        "Peak memory of a step, MiB (ratio to the ordinary step): "
        f"{record['memory_measure']}": (
            lambda row: _with_other(
                row["memory_bytes"], 2**20, 0, row["memory_to_ordinary"]
            )
        ),
        "Compile time, s (the first step, s)": lambda row: _with_other(
            row["compile_seconds"], 1, 1, row["first_seconds"]
        ),
    }
    parts = [
        f"{record['subject']}, {settings['data_format']}, "
        f"jit_compile={jit_compile}{threads}; {versions}"
    ]
    for title, cell in tables.items():
        # What the backend does not measure is nothing in all rows.
        if any(cell(row) is not None for row in rows):
            parts += [title, table(rows, cell)]
    parts.append(EXPLANATION)
    if "snntorch" in settings["methods"]:
        parts.append(SNNTORCH)
    if PEERS.keys() & set(settings["methods"]):
        parts.append(EAGER)
    if any(method in PEERS and PEERS[method].memopt for method in settings["methods"]):
        parts.append(MEMOPT)
    return "\n\n".join(parts)


def table(rows, cell):
    """A Markdown table with a row for each method and a column for each T.

    Args:
        rows: List of dictionaries, see `measure.rows`.
        cell: Function from a row to its text, or to `None` if there is none; methods
            without any text are left out.
    """
    columns = list(dict.fromkeys(row["timesteps"] for row in rows))
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = [cell(row) for row in rows if row["method"] == method]
        if any(text is not None for text in cells):
            lines.append((method, *(text or MISSING for text in cells)))
    return markdown_tables.table(
        ("method", *(f"T = {timesteps}" for timesteps in columns)), lines
    )


def _with_other(value, unit, digits, other):
    """A number in a unit, and another one in brackets, or `None`."""
    if value is None:
        return None
    return f"{value / unit:.{digits}f}" + ("" if other is None else f" ({other:.2f})")


def plot(record, path):
    """Draws time and its ratio to the floor against T, and memory if it was measured.

    Args:
        record: Dictionary, see `measure.benchmark`.
        path: Path of the image file; its suffix determines the format.

    Raises:
        ImportError: If Matplotlib is not installed.
    """
    rows = [row for row in record["rows"] if row["method"] not in (ORDINARY, FORWARD)]
    panels = [
        ("time of a step, ms", rows, lambda row: _scaled(row["seconds"], 1000)),
        (
            "time, ratio to the floor",
            rows,
            lambda row: _scaled(row["ratio_to_floor"], 1),
        ),
    ]
    with_memory = [row for row in record["rows"] if row["memory_bytes"] is not None]
    if with_memory:
        panels.append(
            (
                "peak memory of a step, MiB",
                with_memory,
                lambda row: (row["memory_bytes"] / 2**20,) * 3,
            )
        )
    figure = plots.new_figure(5 * len(panels), 4.5)
    for axes, (title, rows, values) in zip(
        figure.subplots(1, len(panels)), panels, strict=True
    ):
        plots.against_timesteps(axes, title, rows, values, (FLOOR, ORDINARY))
        axes.set_ylim(bottom=0)
    figure.suptitle(record["subject"], fontsize="medium")
    plots.save(figure, path, dpi=150)


def _scaled(spread, scale):
    return tuple(
        spread[key] * scale for key in ("median", "lower_quartile", "upper_quartile")
    )
