"""The published QM9 file."""

from drift_core.runs.datasets import PublishedFile

_NAME = "qm9_smiles.txt"

QM9 = PublishedFile(
    "qm9",
    _NAME,
    f"https://raw.githubusercontent.com/john-bradshaw/GraphVAE/3a92baa6ed8a4ca3c94e3d0d11bd2aab90fcd148/{_NAME}",
    "85f2f11ebb242a5bac7dfbb331479223582395fe8e4b6369973e47ea41627bbb",
)
"""The 133,885 SMILES; the README at this commit names figshare file 3195389, QM9 itself, as the source."""
