"""Events on the Earth as a domain: settings, data, generator, field, metrics and figures."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from drift_core import Batch, Domain, Euclidean, Field, KernelField, NearestField, RadialKernel, Sphere
from drift_core.kernel.by_name import make_kernel
from drift_core.lengthscale import auto_lengthscale, checked_lengthscales, shortest_lengthscale
from drift_core.runs.config import DomainConfig, KernelConfig
from drift_core.runs.domain import ModelNotes, Run, Split, untrained
from drift_core.runs.metrics import Metrics
from drift_core.seeds import generator_for
from drift_core.training.config import FromFile, OptimizerConfig, Settings, at_least
from drift_core.training.samplers import Sampler, resample
from jaxtyping import Float
from torch import Tensor

from drift_sphere.coordinates import sphere_to_latlon, spiral_grid
from drift_sphere.data import Points, load
from drift_sphere.evaluate import evaluate
from drift_sphere.figures import density_figure, field_figure, samples_figure
from drift_sphere.metrics import kernel_sum, mmd2_unbiased
from drift_sphere.model import MAX_CODEBOOK_SIZE, Geometry, SphereGenerator
from drift_sphere.table import write_csv

GRID = 600
"""Points at which the drift field is drawn."""
VALIDATION = 1_024
"""Samples by which a checkpoint is scored."""
WIDTH, PLAIN_WIDTH = 128, 256
"""Width of the network with and without a codebook."""
_SAMPLING, _VALIDATING = 2, 3
_BUFFER, _MAX_BUFFER = 4, 65_536
"""Size of the replay buffer of `NearestField`: multiple of the training points, and maximum."""


@dataclass(frozen=True, kw_only=True)
class SphereKernelConfig(KernelConfig):
    """The kernel, and the direction of the drift."""

    lengthscale: str = "short"
    """In radians: a number, several (0.5,0.05), annealed (2:0.02), auto, or short: 2:0.002
    (spectral: 2:0.02, above nu 2.5 2:0.05)."""
    anneal: FromFile[float] = 0.6
    """Fraction of the steps, at the beginning, over which an annealed lengthscale decreases."""
    neighbors: FromFile[Annotated[int, at_least(0)]] = 128
    """Nearest neighbours of each sample at the end of training (`NearestField`), unless a batch holds all
    data; 0: batches throughout."""

    def check(self) -> None:
        """Raise ValueError for a number that is out of range."""
        super().check()
        if not 0 < self.anneal <= 1:
            raise ValueError(f"`anneal` must lie in (0, 1], got {self.anneal}")

    @property
    def scales(self) -> str:
        """Lengthscale, with the value of short filled in."""
        short = f"2:{max(0.002, shortest_lengthscale(self.kernel, self.smoothness))}"
        return short if self.lengthscale == "short" else self.lengthscale


@dataclass(frozen=True, kw_only=True)
class SphereNetworkConfig(Settings):
    """The generator, and the geometry of its outputs."""

    codebook_size: Annotated[int, at_least(0, MAX_CODEBOOK_SIZE)] = 2_048
    """Codebook entries; 0, as published: Gaussian latents through a plain MLP."""
    geometry: Geometry = "spherical"
    """The sphere, or R^3 with Euclidean distances and a projection at the end."""


@dataclass(frozen=True, kw_only=True)
class SphereDataConfig(Settings):
    """The data."""

    dataset: Literal["toy", "volcano", "earthquake", "fire", "flood"] = "toy"
    """Toy is synthetic, the others are files in --data-dir."""
    data: Path | None = None
    """CSV file of latitude and longitude in degrees instead of a data set."""
    data_dir: Path | None = None
    """Folder of the data sets; none: $DRIFT_DATA_DIR, else a download."""
    split_seed: Annotated[int, at_least(0)] = 42
    """Seed of the split into training, validation and test points."""

    def check(self) -> None:
        """Raise ValueError for a number that is out of range, and for two data sets at once."""
        super().check()
        if self.data is not None and self.dataset != "toy":
            raise ValueError(f"`data` is a file instead of `dataset` {self.dataset}; give one of them")


@dataclass(frozen=True, kw_only=True)
class SphereConfig(DomainConfig):
    """Train a one-step generator of events on the Earth. Defaults were chosen on validation splits."""

    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(steps=1_000, lr=1.5e-3, decay_fraction=0.7, decay_power=5.0)
    )
    kernel: SphereKernelConfig = field(default_factory=SphereKernelConfig)
    network: SphereNetworkConfig = field(default_factory=SphereNetworkConfig)
    data: SphereDataConfig = field(default_factory=SphereDataConfig)


_EARTH: dict[str, Any] = {"steps": 9_000, "eval_draws": 100}


SphereRun = Run[SphereConfig, Points, SphereGenerator]


class SphereDomain(Domain[SphereConfig, Points, SphereGenerator]):
    """Events on the Earth; `make_field` takes the place of the kernel's field, as for a baseline."""

    name = "sphere"
    config_type = SphereConfig
    generator_type = SphereGenerator
    examples: ClassVar[Mapping[str, str]] = {
        "--dataset earthquake": "a published catalogue: volcano, earthquake, fire or flood",
        "--data FILE.csv": "your own points, latitude and longitude in degrees",
        "--kernel spectral --nu 2.5": "a kernel of the sphere's eigenfunctions",
    }
    notes: ClassVar[ModelNotes] = ModelNotes(
        what="events on the Earth, as unit vectors",
        data="Volcanoes, earthquakes, floods and fires as published by Mathieu and Nickel (2020), the "
        "user's own points, or generated clusters (`toy`): the setting `dataset` or `data` says "
        "which. Nine tenths of the rows were for training and choosing settings.",
        limits="For research on generative models. Samples follow past events and the catalogue's own "
        "biases; they say nothing about when or where the next will be. With a codebook they lie "
        "close to training rows.",
    )
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "toy": {},
        "quick": {"steps": 4_000},
        "earth": _EARTH,
        "paper": {
            **_EARTH,
            "codebook_size": 0,
            "decay_fraction": 0.0,
            "lengthscale": "2:0.1",
            "neighbors": 0,
        },
    }
    longer: ClassVar[Mapping[str, str]] = {"quick": "earth"}

    def __init__(self, make_field: Callable[[SphereConfig, Points], Field] | None = None) -> None:
        self.make_field = make_field or kernel_field

    def default_recipe(self, config: SphereConfig) -> str:
        """Toy for the synthetic data, quick for the user's own, earth for the published."""
        if config.data.data is not None:
            return "quick"
        return "toy" if config.data.dataset == "toy" else "earth"

    def load(self, config: SphereConfig) -> Points:
        """Load and split the data; raises as `load`, and ValueError for fewer than two test points."""
        data = config.data
        points = load(data.dataset, data.data, data.data_dir, data.split_seed)
        if len(points.test) < 2:
            rows = sum(map(len, points))
            raise ValueError(
                f"{data.data}: {rows} rows; at least 20 are needed, of which a tenth is for testing"
            )
        return points

    def generator(self, config: SphereConfig, data: Points) -> SphereGenerator:
        """Generator with a codebook, or the plain MLP without."""
        size = config.network.codebook_size
        width = WIDTH if size else PLAIN_WIDTH
        return SphereGenerator(size, width=width, geometry=config.network.geometry)

    def field(self, config: SphereConfig, data: Points) -> Field:
        """The field; raises ValueError for an invalid kernel or lengthscale."""
        return self.make_field(config, data)

    def data_sampler(self, config: SphereConfig, data: Points) -> Sampler:
        """Sampler of training points."""
        return resample(data.train)

    def validation(self, config: SphereConfig, data: Points) -> Callable[[SphereGenerator], float]:
        """Unbiased MMD^2 to the validation points."""
        y_sum = kernel_sum(data.val)

        def unbiased(generator: SphereGenerator) -> float:
            samples = generator.sample(VALIDATION, generator_for(config.run.seed, _VALIDATING)).cpu()
            return mmd2_unbiased(samples, data.val, y_sum)

        return unbiased

    def sample(self, run: SphereRun, n: int, seed: int) -> Float[Tensor, "n 3"]:
        """Draw n unit vectors with a seed."""
        return draw(run.generator, n, seed)

    def write(self, path: Path, samples: Float[Tensor, "n 3"]) -> None:
        """Write samples as latitude and longitude in degrees (CSV)."""
        write_csv(path, sphere_to_latlon(samples))

    def metrics(self, run: SphereRun, draws: int, on: Split) -> Metrics:
        """Two-sample statistics against held-out points, and the log-likelihood of test points."""
        held_out, val = (run.data.test, run.data.val) if on == "test" else (run.data.val, None)
        return evaluate(run.generator.sample, run.data.train, held_out, draws, run.config.run.seed, val)

    def figures(self, run: SphereRun, samples: Float[Tensor, "n 3"]) -> None:
        """Draw samples and densities on the map, and the field before and after training."""
        folder, train = run.folder / "figures", run.data.train
        samples_figure(train, samples, folder / "samples.png")
        density_figure(train, samples, folder / "density.png")
        field = batch_field(run.config, train)
        start = draw(untrained(self, run.config, run.data), self.num_samples, seed=0)
        before, after = (field_on_grid(field, x, train) for x in (start, samples))
        field_figure(spiral_grid(GRID), before, after, train, folder / "field.png")


def kernel_field(
    config: SphereConfig, data: Points, kernel: Callable[[float], RadialKernel] | None = None
) -> KernelField | NearestField:
    """Field between batches, or `NearestField` if a batch does not hold all training points.

    `kernel` maps a lengthscale to a kernel, in place of the named one. Raises as `batch_field`.
    """
    batches, neighbors = batch_field(config, data.train, kernel), config.kernel.neighbors
    if neighbors == 0 or len(data.train) <= config.batch.positives:
        return batches
    buffer_size = min(_BUFFER * len(data.train), _MAX_BUFFER)
    return NearestField(batches, data.train, buffer_size=buffer_size, neighbors=neighbors)


def batch_field(
    config: SphereConfig,
    train: Float[Tensor, "n 3"],
    kernel: Callable[[float], RadialKernel] | None = None,
) -> KernelField:
    """Field between batches; raises ValueError for an invalid kernel or lengthscale."""
    settings, geometry = config.kernel, config.network.geometry
    manifold = Sphere() if geometry == "spherical" else Euclidean()
    if settings.kernel == "spectral" and geometry == "euclidean":
        raise ValueError("`kernel` spectral lives on the sphere; `geometry` euclidean has no such kernel")
    auto = auto_lengthscale(manifold, train) if "auto" in settings.scales else None
    kernel = kernel or partial(make_kernel, settings.kernel, nu=settings.smoothness)
    scales = checked_lengthscales(settings.scales, kernel, auto)
    scales = dataclasses.replace(scales, anneal=settings.anneal)
    return KernelField(manifold, kernel, scales, settings.direction)


def field_on_grid(
    field: KernelField, samples: Float[Tensor, "m 3"], data: Float[Tensor, "n 3"]
) -> Float[Tensor, "g 3"]:
    """Drift between data and samples on an even grid of the sphere, tangent to it.

    Annealed lengthscales are taken half-way: fields are comparable only at the same lengthscale.
    """
    x = spiral_grid(GRID)
    halfway = field.lengthscales.anneal / 2
    return Sphere().proju(x, field(Batch(x, data, samples, None, progress=halfway)).field)


def draw(generator: SphereGenerator, n: int, seed: int) -> Float[Tensor, "n 3"]:
    """Draw n unit vectors with a seed."""
    return generator.sample(n, generator_for(seed, _SAMPLING)).cpu()
