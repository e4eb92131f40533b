"""Training by configuration: `python -m recipes.train NAME`. Each recipe is one small file."""

import os

# Before PyTorch is imported, whose threads on CPUs would else keep the cores busy while they wait: beside other programs that
# takes up to fifteen times as long. GOMP_SPINCOUNT of the user, which says more, stays in force.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
