"""What the tests of all packages share."""

import os

# Before torch is imported: pytest-xdist runs a worker a core, and workers with several threads each wait for
# one another longer than they work.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
