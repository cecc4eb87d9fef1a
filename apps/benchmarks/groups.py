"""The groups of cases by their names."""

from collections.abc import Sequence
from typing import Literal

from benchmarks import fields, points, simplex
from benchmarks.case import Case

Group = Literal[
    "S2",
    "R2",
    "R64",
    "H2",
    "references",
    "dimensions",
    "kernels",
    "eigenfunctions",
    "nearest",
    "couplings",
    "classes",
    "tokens",
    "soft",
    "kmers",
]


def cases_of(group: Group, device: str) -> Sequence[Case]:
    """Cases of a group on a device."""
    match group:
        case "S2" | "R2" | "R64" | "H2":
            return points.growing_n(group, device)
        case "references":
            return points.growing_m(device)
        case "dimensions":
            return points.growing_d(device)
        case "kernels":
            return fields.kernels(device)
        case "eigenfunctions":
            return fields.eigenfunctions(device)
        case "nearest":
            return fields.nearest(device)
        case "couplings":
            return fields.couplings(device)
        case "classes":
            return fields.classes(device)
        case "tokens":
            return simplex.tokens(device)
        case "soft":
            return simplex.soft(device)
        case "kmers":
            return simplex.kmers(device)
