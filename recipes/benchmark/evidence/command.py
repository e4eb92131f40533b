"""What `python -m recipes.benchmark --evidence OUT` does: runs all stages, and prints the tables."""

import keras

from recipes import device
from recipes.benchmark.evidence import journal, plan, runner, tables
from recipes.command_line import Ended, mistakes


def main(folder):
    """Runs the kit with an output folder, a path, or what an earlier run has left over; returns the exit status."""
    if keras.backend.backend() != "torch":
        raise Ended(
            f"--evidence starts from PyTorch. Received: KERAS_BACKEND={keras.backend.backend()!r}. Set KERAS_BACKEND=torch; "
            "the rows of JAX come from a process of its own."
        )
    with mistakes():
        folder.mkdir(parents=True, exist_ok=True)
    path = folder / journal.NAME
    stages = plan.on_gpu() if device.gpu() else plan.on_cpu()
    left = plan.remaining(stages, journal.rows(path) if path.exists() else [])
    runner.run(left, folder, plan.TOTAL_SECONDS, plan.UNTIMED_SECONDS)
    text = tables.markdown(journal.rows(path))
    (folder / "evidence.md").write_text(text + "\n")
    print(text)
    return 0
