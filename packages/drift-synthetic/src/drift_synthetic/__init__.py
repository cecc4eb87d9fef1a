"""Checkerboard and swiss roll on the plane, the sphere and the hyperboloid."""

from drift_synthetic.chart import SPACES, Space
from drift_synthetic.data import TARGETS, Checkerboard, Problem, SwissRoll, make_problem
from drift_synthetic.model import SyntheticGenerator

__all__ = [
    "SPACES",
    "TARGETS",
    "Checkerboard",
    "Problem",
    "Space",
    "SwissRoll",
    "SyntheticGenerator",
    "make_problem",
]
