"""The record of a benchmark as Markdown."""

from recipes import markdown as markdown_tables
from recipes.benchmark.settings import PEERS
from recipes.benchmark.timing import with_quartiles

MISSING = "not counted"

EXPLANATION = """\
floor: (T - 1) x forward + ordinary. ordinary: a training step of the same network without time, with a ReLU instead of each
neuron layer. forward: its forward pass in training mode, without gradient. A ratio is the median over rounds of the time
divided by the floor of the same round. It is below 1 if the floor counts T times what a method does once: the layers before the
first neurons on an image without time, and the launch of a program, which dominates a step of a tiny network. Compile time:
duration of the first step, and of those in which a graph is recorded and compiled, minus the median."""

SNNTORCH = """\
snntorch: its neurons subtract the threshold one step later than ours, and batch normalisation sees one step at a time. The
layers are the same, but not the results."""

EAGER = "spikingjelly and snntorch run in eager mode for any jit_compile."

MEMOPT = """\
spikingjelly-memopt: SpikingJelly with its memory optimisation, level 1 on all residual blocks. It stores the inputs of blocks,
spikes as bits, and computes blocks again in the backward pass. The gradient is that of spikingjelly."""


def markdown(record):
    """The record as text: setup, tables of methods against T, and explanations."""
    settings, rows = record["settings"], record["rows"]
    jit_compile = " and ".join(map(str, record["jit_compile"]))
    threads = "" if settings["threads"] is None else f", threads={settings['threads']}"
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    parts = [
        f"{subject(record)}, {settings['data_format']}, jit_compile={jit_compile}{threads}; {versions}",
        f"Time of a step, ms: median of {settings['rounds']} interleaved rounds (quartiles)",
        table(rows, lambda row: with_quartiles(row["seconds"], 1000, 1)),
        "Images per second",
        table(rows, lambda row: f"{row['images_per_second']:.1f}"),
        "Time, ratio to the floor: median (quartiles)",
        table(rows, lambda row: with_quartiles(row["ratio_to_floor"], 1, 2)),
    ]
    if record["flops_measure"]:
        parts += [
            f"GFLOP of a step (ratio to the floor): {record['flops_measure']}",
            table(rows, lambda row: _with_ratio(row["flops"], 1e9, row["flops_to_floor"], 2)),
        ]
    if record["memory_measure"]:
        parts += [
            f"Peak memory of a step, MiB (ratio to the ordinary step): {record['memory_measure']}",
            table(rows, lambda row: _with_ratio(row["memory_bytes"], 2**20, row["memory_to_ordinary"], 0)),
        ]
    parts += [
        "Compile time, s",
        table(rows, lambda row: None if row["compile_seconds"] is None else f"{row['compile_seconds']:.1f}"),
        EXPLANATION,
    ]
    if "snntorch" in settings["methods"]:
        parts.append(SNNTORCH)
    if PEERS.keys() & set(settings["methods"]):
        parts.append(EAGER)
    if any(method in PEERS and PEERS[method].memopt for method in settings["methods"]):
        parts.append(MEMOPT)
    return "\n\n".join(parts)


def subject(record):
    """Network, backend and device in one line."""
    settings = record["settings"]
    return (
        f"{record['backend']} on {record['device']}: {settings['network']} of width {settings['width']}, "
        f"batch {settings['batch']}, {settings['size']}x{settings['size']}, {settings['precision']}"
    )


def table(rows, cell):
    """A Markdown table with a row for each method and a column for each T.

    Args:
        rows: List of dictionaries, see `measure.rows`.
        cell: Function from a row to its text, or to `None` if there is none; methods without any text are left out.
    """
    columns = list(dict.fromkeys(row["timesteps"] for row in rows))
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = [cell(row) for row in rows if row["method"] == method]
        if any(text is not None for text in cells):
            lines.append((method, *(text or MISSING for text in cells)))
    return markdown_tables.table(("method", *(f"T = {timesteps}" for timesteps in columns)), lines)


def _with_ratio(value, unit, ratio, digits):
    if value is None:
        return None
    return f"{value / unit:.{digits}f}" + ("" if ratio is None else f" ({ratio:.2f})")
