"""The evidence kit: all that has to be known about a GPU, measured in one call, `python -m recipes.benchmark --evidence OUT`.

command.py       the command
plan.py          the stages, on a GPU and, small, on a CPU
runner.py        runs stages as processes, with deadlines
stage.py         the process of one stage
journal.py       the file of rows, which are appended as soon as they are measured
flags.py         TF32 and cuDNN's choice of algorithms, the same for all
about.py         stage: versions, device and flags
reference.py     stage: the reference cases on the device
agreement.py     stage: recorded and compiled graphs against eager mode
compilation.py   stage: compiles what is timed later
steps.py         stage: times, kernels, synchronisations and memory of training steps
first_steps.py   stage: time of the first training steps with empty caches
results.py       losses, outputs and gradients of training steps
graphs.py        recorded and compiled graphs of a model
trace.py         kernels and synchronisations of a step, from PyTorch's profiler
tables.py        the rows as Markdown tables: `python -m recipes.benchmark.evidence.tables OUT`
"""
