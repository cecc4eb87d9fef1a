"""What importing drift_qm9 loads."""

import subprocess
import sys

FOREIGN = {"drift_sphere", "drift_synthetic", "drift_promoter", "ot", "sklearn", "pyBigWig"}


def test_import_loads_no_other_domain_and_no_library_of_theirs() -> None:
    listing = "import sys, drift_qm9; print(*{module.split('.')[0] for module in sys.modules})"
    result = subprocess.run([sys.executable, "-c", listing], check=True, capture_output=True, text=True)
    loaded = set(result.stdout.split())
    assert "drift_qm9" in loaded
    assert not loaded & FOREIGN
