"""Events on the Earth: data, generator, metrics and figures on the sphere."""

from drift_sphere.coordinates import latlon_to_sphere, sphere_to_latlon, spiral_grid
from drift_sphere.data import DATASETS, EARTH, Points, load, load_earth, split
from drift_sphere.evaluate import evaluate
from drift_sphere.figures import density_figure, field_figure, samples_figure
from drift_sphere.metrics import mmd, mmd2_unbiased, nn_accuracy, sinkhorn
from drift_sphere.model import SphereGenerator
from drift_sphere.table import read_csv, write_csv
from drift_sphere.toy import toy

__all__ = [
    "DATASETS",
    "EARTH",
    "Points",
    "SphereGenerator",
    "density_figure",
    "evaluate",
    "field_figure",
    "latlon_to_sphere",
    "load",
    "load_earth",
    "mmd",
    "mmd2_unbiased",
    "nn_accuracy",
    "read_csv",
    "samples_figure",
    "sinkhorn",
    "sphere_to_latlon",
    "spiral_grid",
    "split",
    "toy",
    "write_csv",
]
