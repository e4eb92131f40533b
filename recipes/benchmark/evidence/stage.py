"""The process of one stage: `python -m recipes.benchmark.evidence.stage JOURNAL STAGE`,
where the latter is JSON."""

import importlib
import json
import sys
import time
import traceback

from recipes.benchmark.evidence.journal import append

FAILED, PARTLY = 1, 3
"""Exit statuses: an error was raised, or rows were left out for lack of time. Python
itself uses 2."""


def main(argv=None):
    """Runs the stage of the command line `argv`, by default `sys.argv`; returns the
    exit status. An error is recorded."""
    path, stage = sys.argv[1:] if argv is None else argv
    stage = json.loads(stage)
    begin, left_out = time.monotonic(), False

    def write(row):
        nonlocal left_out
        left_out |= row["kind"] == "left out"
        append(
            path,
            {
                "stage": stage["name"],
                "after_seconds": round(time.monotonic() - begin, 2),
                **row,
            },
        )

    try:
        module = importlib.import_module(f"recipes.benchmark.evidence.{stage['work']}")
        module.run(write, **stage["arguments"])
    # Any error belongs in the record.
    except Exception as error:
        traceback.print_exc()
        write(
            {
                "kind": "error",
                "error": f"{type(error).__name__}: {' '.join(str(error).split())}"[
                    :1000
                ],
            }
        )
        return FAILED
    return PARTLY if left_out else 0


if __name__ == "__main__":
    sys.exit(main())
