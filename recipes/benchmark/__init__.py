"""What a training step costs: `python -m recipes.benchmark` measures it, on the backend that KERAS_BACKEND names.

settings.py       what is measured
cases.py          the models: the library's methods, and the same network without time
peers.py          the same network in other libraries on PyTorch
timing.py         interleaved runs, the floor, medians and spreads
costs.py          FLOPs and memory, as the backend tells them
process_peak.py   memory where only the process tells it, one case a process
measure.py        all of that for a list of T
memory.py         a table of peak memory against T, by itself
report.py         the record as Markdown tables
plot.py           the record as a picture
"""
