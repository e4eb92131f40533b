"""The rows of the kit as Markdown tables: `python -m recipes.benchmark.evidence.tables
OUT`."""

from recipes import command_line
from recipes import markdown as markdown_tables
from recipes.benchmark.evidence import journal, plan
from recipes.benchmark.evidence.results import largest
from recipes.benchmark.timing import with_quartiles

NOT_EVIDENCE = (
    "**Not evidence.** No GPU was found, so the kit ran small, only to show "
    "that it works."
)

STEPS_EXPLAINED = (
    "*: alone, because the stage ended early. "
    "recipes/benchmark/evidence/__init__.py explains the columns."
)

COUNTS = {
    "kernels": "kernels",
    "copies": "copies",
    "launches": "launches",
    "waits": "waits",
    "fetches": ".item()",
}
"""Columns of what is counted in a step."""

STEPS_HEADER = (
    "method",
    "ms",
    "to floor",
    "GPU busy, ms",
    "busy to floor",
    *COUNTS.values(),
    "MiB",
    "compile, s",
)


def add_arguments(parser):
    command_line.add_path(
        parser, "folder", f"folder that contains {journal.NAME}", "OUT"
    )


def print_tables(arguments):
    if not (arguments.folder / journal.NAME).is_file():
        raise command_line.Ended(
            f"name a folder that contains {journal.NAME}. Received: {arguments.folder}"
        )
    print(markdown(journal.rows(arguments.folder / journal.NAME)))


def markdown(rows):
    """All tables, a string.

    Args:
        rows: List of dictionaries, see `journal.rows`.
    """
    parts = [
        about(rows),
        left_out(rows),
        stages(rows),
        reference(rows),
        agreement(rows),
        *steps(rows),
        first_steps(rows),
    ]
    return "\n\n".join(part for part in parts if part)


def about(rows):
    """Device, versions and flags."""
    lines = []
    for row in _of_kind(rows, "about"):
        versions = ", ".join(
            f"{name} {version}" for name, version in row["versions"].items()
        )
        lines += [] if row["evidence"] else [NOT_EVIDENCE, ""]
        cuda = f", CUDA {row['cuda']}, cuDNN {row['cudnn']}" if "cuda" in row else ""
        used = (
            f"{row['device']}{cuda}, {row['cores']} cores; {versions}; "
            f"cudnn.benchmark={row['cudnn_benchmark']}"
        )
        lines.append(f"{used}; commit {row['commit']}, {row['time']}")
    return "\n".join(lines)


def left_out(rows):
    """What the last run of each stage has left out for lack of time, in a sentence."""
    parts = []
    for name, (ended, missing) in _ends(rows).items():
        if missing:
            parts.append(f"{name} ({', '.join(missing)})")
        # What needs a graph that is not compiled is listed itself.
        elif not name.startswith(plan.COMPILATION) and ended["status"] in (
            "skipped",
            "deadline",
        ):
            parts.append(
                name if ended["status"] == "skipped" else f"{name} (the rest of it)"
            )
    again = (
        "The same command again, with the same folder, measures it." if parts else ""
    )
    return (
        f"**Left out for lack of time:** {'; '.join(parts)}. {again}" if parts else ""
    )


def stages(rows):
    """How each stage ended, the last time that it ran."""
    errors = {row["stage"]: row["error"] for row in _of_kind(rows, "error")}

    def remark(name, ended, missing):
        if ended["status"] == "failed":
            return errors.get(name, "")
        return ended.get("reason", "") or "; ".join(
            f"{method}: {reason}" for method, reason in missing.items()
        )

    ends = [(name, *of_stage) for name, of_stage in _ends(rows).items()]
    cells = [
        (name, ended["status"], f"{ended['seconds']:.0f}", remark(name, ended, left))
        for name, ended, left in ends
    ]
    return _table(("stage", "ended", "s", "remark"), cells)


def _ends(rows):
    """From the names of stages to the row of how the last run ended, and the reasons of
    what it left out, by method."""
    found, missing = {}, {}
    for row in rows:
        if row["kind"] == "left out":
            missing.setdefault(row["stage"], {})[row["method"]] = row["reason"]
        elif row["kind"] == "stage":
            found[row["stage"]] = row, missing.pop(row["stage"], {})
    return found


def first_steps(rows):
    """The first training steps with empty caches."""
    cells = [
        (
            row["method"],
            f"T = {row['timesteps']}",
            row["precision"],
            compiled,
            row["steps"],
            f"{row['seconds']:.1f}",
        )
        for row in {row["stage"]: row for row in _of_kind(rows, "first steps")}.values()
        for compiled in [f"{row['jit_compile']} ({row['way']})"]
    ]
    header = (
        "first steps, empty caches",
        "",
        "precision",
        "jit_compile",
        "steps until the graph is replayed",
        "s",
    )
    return _table(header, cells)


def reference(rows):
    """The largest relative error of each reference case, in eager mode, by recorded
    graphs and with TF32."""
    # A later run may have succeeded.
    last = {
        row["case"]: row for row in rows if row["kind"] in ("reference", "failed case")
    }
    failed = {
        case: row["error"] for case, row in last.items() if row["kind"] == "failed case"
    }
    by_mode = {(row["case"], row["mode"]): row for row in _of_kind(rows, "reference")}
    tf32 = {row["case"]: row for row in _of_kind(rows, "tf32")}

    def cell(row):
        return (
            ""
            if row is None
            else f"{largest(row['errors']):.1e}"
            + ("" if row["agrees"] else " **differs**")
        )

    def moved(row):
        if row is None:
            return "", "", ""
        changed = (
            f"{row['logits_moved']} of {row['logits']}, {row['classes_changed']} "
            f"of {row['samples']}"
        )
        return (
            f"{row['errors']['logits']:.1e}",
            f"{row['errors']['gradients']:.1e}",
            changed,
        )

    cells = []
    for case in last:
        of_modes = (cell(by_mode.get((case, mode))) for mode in ("eager", "recorded"))
        cells.append(
            (
                f"{case}: {failed[case]}" if case in failed else case,
                *of_modes,
                *moved(tf32.get(case)),
            )
        )
    header = (
        "reference case",
        "eager",
        "recorded",
        "TF32: logits",
        "TF32: gradients",
        "TF32: logits, classes changed",
    )
    return _table(header, cells)


def agreement(rows):
    """Graphs against eager mode."""
    last = {
        (row["method"], row["precision"], row["mode"]): row
        for row in _of_kind(rows, "agreement")
    }
    cells = [
        (
            row["method"],
            row["precision"],
            row["way"]
            + (
                f" ({row['compiler']})"
                if row["compiler"] and row["way"] == "compiled"
                else ""
            ),
            *(
                f"{row['errors'][kind]:.1e}"
                for kind in ("losses", "gradients", "last_gradients")
            ),
        )
        for row in last.values()
    ]
    return _table(
        (
            "method",
            "precision",
            "against eager",
            "losses",
            "gradients",
            "gradients of the last step",
        ),
        cells,
    )


def steps(rows):
    """A table for each kind of step that was measured, and failures in it."""
    named = dict.fromkeys(
        _table_of(row) for row in rows if row["kind"] in ("step", "failed")
    )
    for name in named:
        inside = [row for row in rows if _table_of(row) == name]
        together, alone, failed = (
            _by_method(inside, kind) for kind in ("interleaved", "step", "failed")
        )
        methods = dict.fromkeys((*alone, *together))
        cells = [
            _step_cells(method, alone.get(method, {}), together.get(method))
            for method in methods
        ]
        failed = {
            method: row["error"]
            for method, row in failed.items()
            if method not in alone
        }
        cells += [
            (f"{method}: {error}", *[""] * (len(STEPS_HEADER) - 1))
            for method, error in failed.items()
        ]
        yield f"{', '.join(map(str, name))}\n\n{_table(STEPS_HEADER, cells)}"
    if named:
        yield STEPS_EXPLAINED


def _by_method(rows, kind):
    """The last row of each method in the first stage that has it: several stages
    measure the floor."""
    found = {}
    for row in _of_kind(rows, kind):
        if found.get(row["method"], row).get("stage") == row.get("stage"):
            found[row["method"]] = row
    return found


def _table_of(row):
    if row["kind"] not in ("step", "failed", "interleaved"):
        return None
    precision = (
        "float32 as TF32"
        if row["tf32"] and row["precision"] == "float32"
        else row["precision"]
    )
    return row["backend"], f"T = {row['timesteps']}", precision, row["data_format"]


def _step_cells(method, alone, together):
    row = together or alone
    detail = [alone[key] for key in ("way", "neurons") if key in alone]
    return (
        method + (f" ({', '.join(detail)})" if detail else ""),
        with_quartiles(row["seconds"], 1000, 2) + ("" if together else " *"),
        f"{together['ratio_to_floor']['median']:.2f}" if together else "",
        _number(alone.get("busy_seconds"), 1e-3, 2),
        _number(alone.get("busy_to_floor"), 1, 2),
        *(_number(alone.get(key), 1, 0) for key in COUNTS),
        _number(alone.get("memory_bytes"), 2**20, 0),
        _number(row.get("compile_seconds"), 1, 1),
    )


def _number(value, unit, digits):
    return "" if value is None else f"{value / unit:.{digits}f}"


def _of_kind(rows, kind):
    return [row for row in rows if row["kind"] == kind]


def _table(header, cells):
    """A Markdown table, or an empty string without rows."""
    return markdown_tables.table(header, cells) if cells else ""


main = command_line.command(
    __name__, "benchmark.evidence.tables", __doc__, add_arguments, print_tables
)
