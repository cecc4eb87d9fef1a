"""What importing drift_promoter loads."""

import subprocess
import sys

FOREIGN = {"drift_sphere", "drift_synthetic", "drift_qm9", "matplotlib", "ot", "rdkit", "pyBigWig", "pyfaidx"}


def test_import_loads_no_other_domain_and_no_heavy_library() -> None:
    listing = "import sys, drift_promoter; print(*{module.split('.')[0] for module in sys.modules})"
    result = subprocess.run([sys.executable, "-c", listing], check=True, capture_output=True, text=True)
    loaded = set(result.stdout.split())
    assert "drift_promoter" in loaded
    assert not loaded & FOREIGN
