import numpy as np
import torch
from drift_sphere import latlon_to_sphere, sphere_to_latlon, spiral_grid
from drift_sphere.coordinates import tangent_frame
from torch import tensor


def test_the_axes_are_where_geography_puts_them():
    latitude = tensor([0.0, 0.0, 90.0, 0.0, -90.0])
    longitude = tensor([0.0, 90.0, 45.0, 180.0, 0.0])
    expected = tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [0, 0, -1]], dtype=torch.float64)
    torch.testing.assert_close(latlon_to_sphere(latitude, longitude), expected, atol=1e-15, rtol=0)


def test_coordinates_round_trip():
    rng = np.random.default_rng(0)
    latlon = torch.from_numpy(np.stack((rng.uniform(-89.9, 89.9, 1000), rng.uniform(-180, 180, 1000)), 1))
    x = latlon_to_sphere(latlon[:, 0], latlon[:, 1])
    torch.testing.assert_close(x.norm(dim=-1), torch.ones(1000, dtype=torch.float64))
    torch.testing.assert_close(sphere_to_latlon(x), latlon, atol=1e-10, rtol=0)


def test_float32_coordinates_are_computed_in_float64():
    x = latlon_to_sphere(tensor([31.1]), tensor([35.5]))
    exact = latlon_to_sphere(tensor([31.1]).double(), tensor([35.5]).double())
    assert torch.equal(x, exact)


def test_the_frame_is_the_derivative_of_the_coordinates():
    latlon = torch.tensor([[10.0, 20.0], [-70.0, -120.0], [45.0, 179.0]], dtype=torch.float64)
    latitude, longitude = latlon.unbind(-1)
    d_latitude, d_longitude = torch.autograd.functional.jacobian(
        lambda a, b: latlon_to_sphere(a, b).sum(0), (latitude, longitude)
    )
    degree = np.degrees(1.0)
    east, north = tangent_frame(latlon_to_sphere(latitude, longitude))
    torch.testing.assert_close(north, d_latitude.T * degree)
    torch.testing.assert_close(east, d_longitude.T * degree / torch.deg2rad(latitude).cos()[:, None])


def test_the_spiral_grid_is_even():
    x = spiral_grid(500).double()
    nearest = torch.cdist(x, x).fill_diagonal_(9).amin(1)
    even = (4 * np.pi / 500) ** 0.5
    assert nearest.min() > 0.6 * even
    assert nearest.max() < 1.1 * even
