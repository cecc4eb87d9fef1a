"""What the tests of all packages share."""

import os
from pathlib import Path

# Before torch is imported: pytest-xdist runs a worker a core, and workers with several threads each wait for
# one another longer than they work.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from shape_checks import check_shapes

check_shapes(*(folder.name.replace("-", "_") for folder in Path(__file__).parent.glob("drift-*")))
