"""The evidence kit: all that has to be known about a GPU, measured in one call, `python
-m recipes.benchmark --evidence OUT`.

Stages run in processes of their own, each with a deadline. Those without timings (the
reference cases, which without TF32 must agree within 1e-3; recorded and compiled graphs
against eager mode; the compilation of what is timed later) run first, several at once,
for 230 s at most. Then the others run one after the other, the most important first:
training steps of a ResNet-18 (width 1, batch 128, 32x32, T = 4 and 8; float32 as TF32,
and `mixed_bfloat16`) by the library's methods with `jit_compile="auto"` and `True`, an
ordinary step, the floor, and SpikingJelly with its fastest neurons (CUDA if they were
built, else Triton; in half precision Triton), in float32 with its PyTorch neurons, and
with levels 1 to 4 of its memory optimisation; on JAX with unrolled and with compiled
time loops; and the first training steps of rate multi at T = 8, with empty caches. In
all stages cuDNN searches for its fastest algorithms.

For each step there are the time, the time in which the GPU is busy, kernels, launches,
waits for the GPU and `.item()` calls, and peak memory. Both times are compared with the
floor's: the floor is Keras in eager mode, where a GPU often waits for the host, so a
ratio of times alone would flatter the library, and only "busy to floor" says how much
work a method adds. Each stage measures a floor of its own; the table shows that of the
first. Compiling is what the first step, the recorded step and the first replay took
longer than the others. Recorded graphs contain the compiled time loops of neurons, as
after the 32 calls in eager mode that `"auto"` makes: the kit makes one before it
records, and compares gradients only from the first replay on.

Each row is appended to `evidence.jsonl` as soon as it is measured. A stage that fails
or exceeds its deadline is recorded, and the rest still runs. On few or busy cores
compiling takes longer than the nine minutes: what is least important is left out
(graphs that are not compiled in time, methods for which a stage has no time left, the
last stages) and listed above the tables.

runner.py the command: runs stages as processes, with deadlines plan.py the stages, on a
GPU and, small, on a CPU stage.py the process of one stage journal.py the file of rows,
which are appended as soon as they are measured flags.py TF32 and cuDNN's choice of
algorithms, the same for all about.py stage: versions, device and flags reference.py
stage: the reference cases on the device agreement.py stage: recorded and compiled
graphs against eager mode compilation.py stage: compiles what is timed later steps.py
stage: times, kernels, synchronisations and memory of training steps first_steps.py
stage: time of the first training steps with empty caches results.py losses, outputs and
gradients of training steps graphs.py recorded and compiled graphs of a model trace.py
kernels and synchronisations of a step, from PyTorch's profiler tables.py the rows as
Markdown tables: `python -m recipes.benchmark.evidence.tables OUT`
"""
