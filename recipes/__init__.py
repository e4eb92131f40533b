"""Training by configuration: `python -m recipes.train NAME`. Each recipe is one small
file."""

import os

WAITS = {"OMP_WAIT_POLICY": "PASSIVE"}
"""How PyTorch's threads wait: by default they keep the cores busy, so that beside other
programs they wait for each other."""

# Set before PyTorch is imported, which reads it then. Whoever set GOMP_SPINCOUNT has
# chosen how threads wait.
is_ours = not os.environ.keys() & {"GOMP_SPINCOUNT", *WAITS}
if is_ours:
    os.environ |= WAITS
