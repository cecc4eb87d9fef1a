import csv
import hashlib
import shutil
from dataclasses import replace

import numpy as np
import pooch
import pytest
import requests
import torch
from drift_sphere import DATASETS, EARTH, load, load_earth, split, toy
from drift_sphere.toy import von_mises_fisher
from torch import Generator
from torch.utils.data import TensorDataset, random_split

SIZES = {
    "volcano": (663, 82, 82),
    "earthquake": (4896, 612, 612),
    "flood": (3901, 487, 487),
    "fire": (10249, 1280, 1280),
}


@pytest.mark.parametrize("name", EARTH)
def test_the_published_files_and_splits(name, earth_dir):
    assert len(load_earth(name, earth_dir)) == sum(SIZES[name])
    assert tuple(map(len, load(name, data_dir=earth_dir))) == SIZES[name]


@pytest.mark.parametrize(
    ("name", "skip"), {"volcano": 2, "earthquake": 4, "flood": 2, "fire": 1}.items()
)  # the lines that riemannian-score-sde skips
def test_rows_are_those_of_numpy(name, skip, earth_dir):
    expected = np.genfromtxt(earth_dir / "earth" / EARTH[name].name, delimiter=",", skip_header=skip)
    assert np.array_equal(load_earth(name, earth_dir).numpy(), expected)


def test_membership_is_that_of_random_split_over_rows(earth_dir):
    with (earth_dir / "earth" / "volerup.csv").open() as file:
        rows = [tuple(map(float, row)) for row in list(csv.reader(file))[2:]]
    parts = random_split(rows, [663, 82, 82], generator=Generator().manual_seed(42))
    for part, points in zip(parts, load("volcano", data_dir=earth_dir), strict=True):
        lat, lon = np.radians(np.array([rows[i] for i in part.indices])).T
        expected = np.stack((np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)), axis=1)
        np.testing.assert_allclose(points.numpy(), expected, atol=1e-7)


def test_split_covers_all_rows_once_in_the_order_of_random_split(generator):
    points = toy(107, generator)
    parts = split(points, seed=7)
    reference = random_split(TensorDataset(points), [87, 10, 10], generator=Generator().manual_seed(7))
    for part, expected in zip(parts, reference, strict=True):
        assert part.dtype == torch.float32
        assert torch.equal(part, points[expected.indices].float())
    assert len(torch.cat(parts).unique(dim=0)) == 107
    assert not torch.equal(split(points, seed=8).test, parts.test)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.eye(3), "3 points; at least 10"),
        (torch.zeros(10, 3), "not on the unit sphere"),
        (torch.ones(10, 3), "not on the unit sphere"),
        (torch.full((10, 3), torch.nan), "not on the unit sphere"),
    ],
)
def test_split_refuses_too_few_points_and_points_off_the_sphere(points, message):
    with pytest.raises(ValueError, match=message):
        split(points)


def test_load_knows_its_data_sets_and_files(tmp_path):
    assert DATASETS == ("toy", "volcano", "earthquake", "flood", "fire")
    assert tuple(map(len, load())) == (4000, 500, 500)
    assert torch.equal(load().test, load("toy").test)
    with pytest.raises(ValueError, match="no data set 'quake'; there are toy, volcano"):
        load("quake")
    path = tmp_path / "mine.csv"
    path.write_text("lat,lon\n" + "0,90\n" * 10)
    assert torch.cat(load("toy", data=path)).allclose(torch.tensor([0.0, 1.0, 0.0]), atol=1e-7)


def test_data_folders(tmp_path, earth_dir, monkeypatch):
    monkeypatch.setenv("DRIFT_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"volerup\.csv"):
        load_earth("volcano")
    shutil.copyfile(earth_dir / "earth" / "volerup.csv", tmp_path / "volerup.csv")
    assert torch.equal(load_earth("volcano"), load_earth("volcano", earth_dir))
    with (tmp_path / "volerup.csv").open("a") as file:
        file.write("\n0,0")
    with pytest.raises(ValueError, match="not the published file"):
        load_earth("volcano")


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("DRIFT_DATA_DIR", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    return tmp_path / "drift" / "earth"


def test_without_a_network_the_error_names_url_and_variable(empty_cache, monkeypatch):
    def unreachable(*args, **kwargs):
        raise requests.exceptions.ConnectTimeout("a\nlong\ntext")

    monkeypatch.setattr(requests, "get", unreachable)
    with pytest.raises(ConnectionError, match=r"https://raw.*fire\.csv.*DRIFT_DATA_DIR") as caught:
        load_earth("fire")
    assert "\n" not in str(caught.value)
    assert not list(empty_cache.glob("*"))


def test_downloads_are_checked_and_cached(empty_cache, monkeypatch):
    content = b"# no header\n" + b"1,2\n" * 12
    entry = EARTH["fire"]
    downloads = []

    def retrieve(self, url, output_file, pooch_instance, **kwargs):
        downloads.append(url)
        output_file.write(content) if hasattr(output_file, "write") else None
        with open(output_file, "wb") as file:  # noqa: PTH123
            file.write(content)

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", retrieve)
    with pytest.raises(ValueError, match="does not have sha256"):
        load_earth("fire")
    good = replace(entry, sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(EARTH, "fire", good)
    assert torch.equal(load_earth("fire"), load_earth("fire"))
    assert downloads == [entry.url] * 2


def test_toy_depends_on_its_generator_alone():
    first, again, other = (toy(500, Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.testing.assert_close(first.norm(dim=-1), torch.ones(500, dtype=torch.float64))


def test_von_mises_fisher_has_its_mean_and_symmetry(generator):
    n, mean = 40_000, torch.nn.functional.normalize(torch.tensor([1.0, -2.0, 0.5]).double(), dim=0)
    for concentration in (0.5, 5.0, 500.0):
        x = von_mises_fisher(mean.expand(n, 3), torch.full((n,), concentration).double(), generator)
        resultant = 1 / np.tanh(concentration) - 1 / concentration  # of the Langevin distribution
        torch.testing.assert_close(x.mean(0), resultant * mean, atol=0.015, rtol=0)
