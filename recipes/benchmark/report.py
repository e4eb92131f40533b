"""The record of a benchmark as Markdown tables."""

from recipes import markdown as markdown_tables
from recipes.benchmark.settings import PEERS
from recipes.benchmark.timing import with_quartiles

MISSING = "not counted"

COUNTS = ("kernels", "copies", "launches", "waits", "fetches")
"""The numbers of `trace.counts` that are shown, besides the time."""

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
    parts = [f"{record['subject']}, jit_compile={jit_compile}{threads}; {versions}"]
    for title, cell in _tables(record).items():
        # What the backend does not measure is nothing in all rows.
        if any(cell(row) is not None for row in rows):
            parts += [title, table(rows, cell)]
    methods = settings["methods"]
    parts.append(EXPLANATION)
    if "snntorch" in methods:
        parts.append(SNNTORCH)
    if PEERS.keys() & set(methods):
        parts.append(EAGER)
    if any(method in PEERS and PEERS[method].memopt for method in methods):
        parts.append(MEMOPT)
    return "\n\n".join([*parts, *record["errors"]])


def _tables(record):
    """The titles of the tables, and functions from a row to the text of its cell."""
    rounds = record["settings"]["rounds"]
    first = record["rows"][0]["method"]

    def ratio(key):
        return lambda row: with_quartiles(row[key], 1, 2) if key in row else None

    def count(key):
        return lambda row: f"{row['counts'][key]:.1f}" if row["counts"] else None

    tables = {
        f"Time of a step, ms: median of {rounds} interleaved rounds (quartiles)": (
            lambda row: with_quartiles(row["seconds"], 1000, 1)
        ),
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
        "Engine": lambda row: row["engine"],
        "Time in which the GPU is busy, ms (ratio to the floor)": (
            lambda row: _with_ratio(
                row["counts"].get("busy_seconds"), 1e-3, 2, row.get("busy_to_floor")
            )
        ),
    }
    for key in COUNTS:
        tables[f"{key.capitalize()} in a step"] = count(key)
    return tables


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
