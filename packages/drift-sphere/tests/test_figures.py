import matplotlib
import numpy as np
import pytest
import torch
from drift_sphere import (
    density_figure,
    field_figure,
    latlon_to_sphere,
    samples_figure,
    spiral_grid,
    toy,
)
from drift_sphere.figures import kernel_density
from drift_sphere.world import coastlines, map_arrows, some, world_axes
from matplotlib.figure import Figure
from matplotlib.image import imread


@pytest.fixture
def points(generator):
    return toy(300, generator).float()


def assert_is_picture(path):
    image = imread(path)
    assert min(image.shape[:2]) > 200
    assert image.std() > 0.05
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_samples(points, tmp_path):
    samples_figure(points, points.flip(0)[:50], tmp_path / "new" / "samples.png")
    assert_is_picture(tmp_path / "new" / "samples.png")


def test_densities(points, tmp_path):
    density_figure(points, points[:1], tmp_path / "density.png")
    assert_is_picture(tmp_path / "density.png")


def test_fields(points, tmp_path):
    x = spiral_grid(100)
    v = torch.linalg.cross(x, torch.tensor([[0.0, 0.0, 1.0]]).expand(100, 3))
    field_figure(x, v, torch.zeros_like(v), points, tmp_path / "field.png")
    assert_is_picture(tmp_path / "field.png")


def test_a_failing_figure_leaves_what_was_there(points, tmp_path, monkeypatch):
    path = tmp_path / "samples.png"
    path.write_text("old")
    monkeypatch.setattr(Figure, "savefig", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        samples_figure(points, points, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_figures_leave_pyplot_alone(points, tmp_path):
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    samples_figure(points, points, tmp_path / "samples.png")
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


def test_kernel_density_has_mean_one_and_the_closed_form(points):
    grid = spiral_grid(20_000)
    assert kernel_density(grid, points, 0.2).mean() == pytest.approx(1, abs=1e-3)
    pole, kappa = torch.tensor([[0.0, 0.0, 1.0]]), 25.0
    expected = 4 * np.pi * kappa / (4 * np.pi * np.sinh(kappa)) * np.exp(kappa)
    assert kernel_density(pole, pole, 0.2).item() == pytest.approx(expected)


def test_arrows_keep_their_length_and_follow_the_map():
    axes = world_axes(Figure(), 1, "")
    latitude, longitude = torch.tensor([0.0, 0.0, 40.0, 40.0]), torch.tensor([0.0, 0.0, 150.0, -150.0])
    x = latlon_to_sphere(latitude, longitude)
    east = torch.stack((-torch.deg2rad(longitude).sin(), torch.deg2rad(longitude).cos(), torch.zeros(4)), 1)
    north = torch.linalg.cross(x, east.double())
    v = torch.cat((east[:1].double(), north[1:]))
    right, up = map_arrows(axes, x, 3 * v)
    np.testing.assert_allclose(np.hypot(right, up), 3, rtol=1e-6)
    np.testing.assert_allclose((right[0], up[0], right[1], up[1]), (3, 0, 0, 3), atol=1e-3)
    assert right[2] < -0.5  # meridians lean towards the pole, to the left in the east
    assert right[3] > 0.5


def winding(longitude: float, latitude: float) -> float:
    """Turns of the coastlines around a point of the map; lines that end at the map's edge turn in part."""
    total = 0.0
    for line in coastlines():
        x, y = (np.degrees(line) - (longitude, latitude)).T
        angle = np.unwrap(np.arctan2(y, x))
        total += (angle[-1] - angle[0]) / (2 * np.pi)
    return abs(round(total))


@pytest.mark.parametrize(
    ("place", "latitude", "longitude", "land"),
    [
        ("Alice Springs", -23.7, 133.9, True),
        ("Antananarivo", -18.9, 47.5, True),
        ("Reykjavik", 64.5, -19.0, True),
        ("Quito", -0.2, -78.5, True),
        ("the Bay of Bengal", 15.0, 90.0, False),
        ("the middle of the Pacific", 0.0, -150.0, False),
        ("the Gulf of Mexico", 25.0, -90.0, False),
        ("the Tasman Sea", -38.0, 160.0, False),
    ],
)
def test_coastlines_tell_land_from_sea(place, latitude, longitude, land):
    assert winding(longitude, latitude) == land, place


def test_coastlines_are_a_map_of_the_world_without_jumps():
    lines = coastlines()
    assert len(lines) > 100
    longitude, latitude = np.concatenate(lines).T
    assert np.abs(longitude).max() <= np.pi
    assert np.abs(latitude).max() < np.pi / 2
    assert max(np.hypot(*np.diff(line, axis=0).T).max() for line in lines) < np.radians(15)


def test_at_most_five_thousand_points_are_drawn(generator):
    assert len(some(toy(12_000, generator))) == 4000
    assert len(some(toy(1, generator))) == 1
