"""Benchmark of the cost of a training step: `python -m recipes.benchmark`, on the
backend selected by KERAS_BACKEND.

step.py               the command: time, FLOPs and memory of a training step
inference.py          images per second
gpu.py                all questions about a GPU, in one run
settings.py           the settings, and the methods that are known
cases.py              the networks: the library's methods, and the same without time
peers.py              the same networks in other libraries on PyTorch
translated.py         a network of this library in another one
measure.py            what a step costs, of us and of others, beside the floor
timing.py             interleaved runs, the floor, medians and spreads
costs.py              FLOPs and memory, as reported by the backend
compiled.py           the memory plan of a step for a device that is not there
compiled_tables.py    tables of these plans for the paper's networks
programs.py           the work in a compiled program of XLA
processes.py          steps of other libraries in a process of their own
trace.py              what a step does on a GPU
report.py             the record as Markdown tables
"""

import os

import recipes

# Undone here: on an idle machine, where steps are measured, passive waiting costs up to
# a third of a step, and more of other libraries'.
if recipes.is_ours:
    for name in recipes.WAITS:
        os.environ.pop(name, None)
