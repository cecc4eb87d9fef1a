"""What importing drift_synthetic loads."""

import subprocess
import sys

FOREIGN = {
    "drift_sphere",
    "drift_simplex",
    "drift_promoter",
    "drift_qm9",
    "matplotlib",
    "ot",
    "scipy",
    "sklearn",
    "rdkit",
    "pyBigWig",
}


def test_import_loads_no_other_domain_and_no_heavy_library() -> None:
    listing = "import sys, drift_synthetic; print(*{module.split('.')[0] for module in sys.modules})"
    result = subprocess.run([sys.executable, "-c", listing], check=True, capture_output=True, text=True)
    loaded = set(result.stdout.split())
    assert "drift_synthetic" in loaded
    assert not loaded & FOREIGN
