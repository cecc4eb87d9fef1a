"""The examples do what they say, and stay as short."""

import importlib.util
import json
import math
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from drift_core import Batch, Euclidean, KernelField, Laplace
from drift_core.lengthscale import parse_lengthscales
from drift_core.testing import check_field
from PIL import Image
from scipy.integrate import quad

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(*args: object, cwd: Path, example: str = "wind.py") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / example), *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def refused(monkeypatch, tmp_path, capsys) -> Callable[..., str]:
    """Run an example in this process, which it refuses; the last line of its message."""

    def run(example: str, *args: object) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [example, *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(EXAMPLES / example), run_name="__main__")
        assert stop.value.code == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    return run


def test_a_domain_in_120_lines(tmp_path, refused):
    assert len((EXAMPLES / "wind.py").read_text().splitlines()) <= 120
    (tmp_path / "mine.txt").write_text("\n".join(str(90 + 10 * (i % 9)) for i in range(400)))
    flags = ["--steps", 200, "--batch-size", 256, "--eval-draws", 3, "--out", "run"]
    result = run("--data", "mine.txt", *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["w1"]["value"] < 15  # degrees; of uniform directions 100
    degrees = [float(line) for line in (tmp_path / "run" / "samples.txt").read_text().split()]
    assert len(degrees) == 2_000
    assert sum(70 < d < 190 for d in degrees) > 1_900
    assert {path.name for path in (tmp_path / "run" / "figures").iterdir()} == {"rose.png", "training.png"}
    assert refused("wind.py", "--data", "nowhere.txt", "--out", "other").startswith("error: ")
    assert not (tmp_path / "other").exists()


def test_digits_of_a_class_from_a_folder_of_images(tmp_path, refused):
    """Bars, horizontal or vertical, at random heights: a class each."""
    generator = torch.Generator().manual_seed(0)
    for label, name in enumerate(("horizontal", "vertical")):
        (tmp_path / "bars" / name).mkdir(parents=True)
        for i in range(60):
            image = torch.zeros(8, 8)
            image[int(torch.randint(8, (), generator=generator))] = 255
            image = (image if label == 0 else image.T).numpy().astype("uint8")
            Image.fromarray(image).save(tmp_path / "bars" / name / f"{i}.png")
    flags = ["--features", "--steps", 30, "--batch-size", 64, "--eval-draws", 2, "--data", "bars"]
    result = run(*flags, "--out", "run", cwd=tmp_path, example="digits.py")
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["agreement_at_1"]["value"] > 0.7  # chance is 0.5; one setting of the threads has 0.85
    assert metrics["agreement_at_1"]["floor"] > 0.9
    figures = {path.name for path in (tmp_path / "run" / "figures").iterdir()}
    assert figures == {"samples.png", "nearest.png", "guidance.png", "training.png"}
    (tmp_path / "bars" / "vertical" / "0.png").write_text("no image")
    assert "0.png" in refused("digits.py", *flags, "--out", "other")
    assert not (tmp_path / "other").exists()


def test_a_field_in_15_lines_is_refused_by_the_laws():
    source = (EXAMPLES / "half_repulsion.py").read_text()
    assert len(source[source.index("@dataclass") :].splitlines()) <= 15
    spec = importlib.util.spec_from_file_location("half_repulsion", EXAMPLES / "half_repulsion.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    field = KernelField(Euclidean(), Laplace, parse_lengthscales("0.5"))
    clouds = torch.randn(3, 6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    check_field(field, Batch(*clouds))
    with pytest.raises(AssertionError, match="swapping data and model flips the sign"):
        check_field(module.HalfRepulsion(field), Batch(*clouds))


def test_a_metric_in_a_chart_is_a_manifold_in_60_lines(tmp_path, monkeypatch):
    """Lengths of meridians of z = 0.5 exp(-r^2) against their integral; and a picture after a few steps."""
    assert len((EXAMPLES / "hill.py").read_text().splitlines()) <= 60
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["hill.py", "2"])
    hill = runpy.run_path(str(EXAMPLES / "hill.py"), run_name="__main__")["Chart"]()
    plt.close("all")
    assert (tmp_path / "hill.png").read_bytes().startswith(b"\x89PNG")
    ends = torch.tensor([0.2, 0.8, 1.3], dtype=torch.float64)
    lengths = [quad(lambda r: math.hypot(1, r * math.exp(-r * r)), 0, end)[0] for end in ends.tolist()]
    direction = torch.tensor([0.6, -0.8], dtype=torch.float64)
    found = hill.dist(torch.zeros(3, 2).double(), ends[:, None] * direction)
    torch.testing.assert_close(found, torch.tensor(lengths).double(), atol=2e-4, rtol=0)
