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
    parts = [
        f"{record['subject']}, {settings['data_format']}, "
        f"jit_compile={jit_compile}{threads}; {versions}"
    ]
    for title, cell in _tables(record).items():
        # What the backend does not measure is nothing in all rows.
        if any(cell(row) is not None for row in rows):
            parts += [title, table(rows, cell)]
    methods = settings["methods"]
    parts += _unrolled(rows)
    parts.append(EXPLANATION)
    if "snntorch" in methods:
        parts.append(SNNTORCH)
    if PEERS.keys() & set(methods):
        parts.append(EAGER)
    if any(method in PEERS and PEERS[method].memopt for method in methods):
        parts.append(MEMOPT)
    return "\n\n".join(parts)


def _tables(record):
    """The titles of the tables, and functions from a row to the text of its cell."""
    rounds = record["settings"]["rounds"]
    first = record["rows"][0]["method"]

    def ratio(key):
        return lambda row: with_quartiles(row[key], 1, 2) if key in row else None

    return {
        f"Time of a step, ms: median of {rounds} interleaved rounds (quartiles)": (
            lambda row: with_quartiles(row["seconds"], 1000, 1)
        ),
        "Images per second": lambda row: f"{row['images_per_second']:.1f}",
        "Time, ratio to the floor: median (quartiles)": ratio("ratio_to_floor"),
        f"Time, ratio to {first}: median (quartiles)": ratio("ratio_to_first"),
        f"GFLOP of a step (ratio to the floor): {record['flops_measure']}": (
            lambda row: _with_ratio(row["flops"], 1e9, 2, row.get("flops_to_floor"))
        ),
        "Peak memory of a step, MiB (ratio to the ordinary step): "
        f"{record['memory_measure']}": (
            lambda row: _with_ratio(
                row["memory_bytes"], 2**20, 1, row.get("memory_to_ordinary")
            )
        ),
        "Compile time, s (the first step, s)": (
            lambda row: _with_ratio(row["compile_seconds"], 1, 1, row["first_seconds"])
        ),
    }


def _unrolled(rows):
    """Of each method with both forms of time loops, up to which T it is faster
    unrolled: a list of sentences."""
    suffix = ", unrolled"
    methods = [
        row["method"].removesuffix(suffix)
        for row in rows
        if row["method"].endswith(suffix)
    ]
    return [
        f"{method}: unrolled time loops are faster up to T = "
        f"{last_unrolled(rows, method)}."
        for method in dict.fromkeys(methods)
    ]


def last_unrolled(rows, method):
    """The largest T up to which the unrolled form of a method was faster at every
    measured T; 1 if it never was."""
    medians = {
        (row["timesteps"], row["method"]): row["seconds"]["median"] for row in rows
    }
    last = 1
    for timesteps in sorted({row["timesteps"] for row in rows}):
        unrolled = medians[timesteps, f"{method}, unrolled"]
        if unrolled > medians[timesteps, f"{method}, loop"]:
            return last
        last = timesteps
    return last


def memory_table(settings, measured):
    """The memory of training steps as a Markdown table.

    Args:
        settings: `Settings`.
        measured: Dictionary from methods to lists of bytes, one for each T.
    """
    first, *_, last = settings.timesteps
    columns = [f"T = {timesteps}" for timesteps in settings.timesteps]
    rows = []
    for method, sizes in measured.items():
        cells = [f"{size / 2**20:.0f}" for size in sizes]
        rows.append((method, *cells, f"{sizes[-1] / sizes[0]:.2f}"))
    return markdown_tables.table(
        ("method, MiB", *columns, f"T = {last} / T = {first}"), rows
    )


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


def _with_ratio(value, unit, digits, ratio):
    """A number in a unit, and another one in brackets, or `None`."""
    if value is None:
        return None
    return f"{value / unit:.{digits}f}" + ("" if ratio is None else f" ({ratio:.2f})")


def plot(record, path):
    """Draws time and its ratio to the floor against T, and memory if it was measured.

    Args:
        record: Dictionary, see `measure.benchmark`.
        path: Path of the image file; its suffix determines the format.

    Raises:
        ImportError: If Matplotlib is not installed.
    """
    rows = [row for row in record["rows"] if row["method"] not in (ORDINARY, FORWARD)]
    panels = [("time of a step, ms", rows, lambda row: _scaled(row["seconds"], 1000))]
    for base in ("floor", "first"):
        key = f"ratio_to_{base}"
        if key in rows[0]:
            panels.append(
                (
                    f"time, ratio to the {base}",
                    rows,
                    lambda row, key=key: _scaled(row[key], 1),
                )
            )
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
