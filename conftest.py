"""What the tests of all packages share."""

import os

import pytest

# Before torch is imported: pytest-xdist runs a worker a core, and workers with several threads each wait for
# one another longer than they work. Processes that tests start inherit it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Run tests that are named one by one (file::test) in this process: workers take longer to start."""
    return 0 if all("::" in argument for argument in config.args) else None
