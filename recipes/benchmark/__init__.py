"""Benchmark of the cost of a training step: `python -m recipes.benchmark`, on the
backend selected by KERAS_BACKEND.

settings.py       the settings of a benchmark
cases.py          the models: the library's methods, and the same network without time
peers.py          the same network in other libraries on PyTorch
timing.py         interleaved runs, the floor, medians and spreads
costs.py          FLOPs and memory, as reported by the backend
own_process.py    steps of other libraries in a process of their own
process_peak.py   peak memory of a process, with a separate process for each case
measure.py        the benchmark for a list of T
memory.py         a separate table of peak memory against T
loops.py          the time loops of layers under XLA, unrolled or compiled
sequences.py      masks, recurrence, delays, parallel neurons
unrolling.py      which of the two is faster on this device, on JAX
xla.py            a step on TensorFlow with and without XLA
report.py         the record as Markdown tables, and as a plot
recorded.py       ordinary Keras models that are recorded on PyTorch
evidence/         the evidence kit for GPUs
"""

import os

import recipes

# On an idle machine, where is measured, it costs up to a third of a step, and more of
# other libraries'.
if recipes.is_ours:
    for name in recipes.WAITS:
        os.environ.pop(name, None)
