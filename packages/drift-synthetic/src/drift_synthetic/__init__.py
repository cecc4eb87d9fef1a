"""Densities on the plane, the sphere and other spaces: exact samplers, or points of a file."""

from drift_synthetic.chart import ChartSpace
from drift_synthetic.data import (
    FileProblem,
    Problem,
    TargetProblem,
    make_problem,
    read_problem,
)
from drift_synthetic.model import SyntheticGenerator
from drift_synthetic.space import AmbientSpace, Space
from drift_synthetic.spaces import SPACES, find_space
from drift_synthetic.targets import Checkerboard, RotationModes, Spirals, SwissRoll, VertexDensity

__all__ = [
    "SPACES",
    "AmbientSpace",
    "ChartSpace",
    "Checkerboard",
    "FileProblem",
    "Problem",
    "RotationModes",
    "Space",
    "Spirals",
    "SwissRoll",
    "SyntheticGenerator",
    "TargetProblem",
    "VertexDensity",
    "find_space",
    "make_problem",
    "read_problem",
]
