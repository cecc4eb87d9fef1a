"""The synthetic targets as a domain: settings, problem, generator, field, metrics and figures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

from drift_core import Batch, Domain, Euclidean, KernelField, SpectralField, Sphere
from drift_core.kernel.by_name import make_kernel
from drift_core.lengthscale import (
    auto_lengthscale,
    checked_lengthscales,
    parse_lengthscales,
    shortest_lengthscale,
)
from drift_core.manifold import Manifold
from drift_core.runs.config import DomainConfig, KernelConfig
from drift_core.runs.domain import ModelNotes, Run, Split, untrained
from drift_core.runs.metrics import Metrics
from drift_core.seeds import generator_for
from drift_core.training.config import OptimizerConfig, Settings, at_least
from drift_core.training.samplers import Sampler
from jaxtyping import Float
from torch import Tensor

from drift_synthetic.chart import ChartSpace
from drift_synthetic.data import Problem, TargetName, make_problem, read_problem
from drift_synthetic.evaluate import evaluate
from drift_synthetic.figures import DATA, Row, field_figure, grid_figure, lattice
from drift_synthetic.metrics import sliced_wasserstein
from drift_synthetic.model import MAX_CODEBOOK_SIZE, Geometry, SyntheticGenerator
from drift_synthetic.snapshots import read_snapshots, write_snapshots
from drift_synthetic.space import Space
from drift_synthetic.spaces import SpaceName
from drift_synthetic.spectral import surface_kernel
from drift_synthetic.surface import Surface
from drift_synthetic.table import write_csv

VALIDATION = 2_048
"""Samples by which a checkpoint is scored."""
_SAMPLING, _DRAWING, _VALIDATING = 2, 3, 4


class Samples(NamedTuple):
    """Points [n, d] and their space: the sphere and the hyperboloid both have d = 3."""

    space: Space
    points: Tensor


@dataclass(frozen=True, kw_only=True)
class SyntheticKernelConfig(KernelConfig):
    """The kernel, and the direction of the drift."""

    lengthscale: str = "short"
    """In units of distance: a number, several (0.5,0.05), annealed (1:0.03), auto, or short: 1:0.03
    (spectral above nu 2.5: 1:0.05)."""

    @property
    def scales(self) -> str:
        """Lengthscale, with the value of short filled in."""
        short = f"1:{max(0.03, shortest_lengthscale(self.kernel, self.smoothness))}"
        return short if self.lengthscale == "short" else self.lengthscale


@dataclass(frozen=True, kw_only=True)
class SyntheticNetworkConfig(Settings):
    """The generator, and the geometry of its outputs."""

    codebook_size: Annotated[int, at_least(0, MAX_CODEBOOK_SIZE)] = 2_048
    """Codebook entries; 0, as published: Gaussian latents through a plain MLP."""
    geometry: Geometry = "intrinsic"
    """Drift on the space, or in its ambient space with Euclidean distances and a projection at the end."""


@dataclass(frozen=True, kw_only=True)
class SyntheticDataConfig(Settings):
    """The data: a target, of which every step draws fresh points, or a file."""

    target: TargetName | None = None
    """Density; none: the first of its space in the README's table."""
    space: SpaceName = "sphere"
    """Space of the points."""
    mesh: Path | None = None
    """OBJ or PLY file of a closed surface, for --space mesh; none: a trefoil."""
    data: Path | None = None
    """CSV file of points instead of a target. Columns: x,y (plane); x,y,z, a unit
    vector (sphere); t,x,y (hyperboloid); phi,psi in radians (torus); w,x,y,z, a unit quaternion (so3);
    x,y,z,u,v (product of sphere and plane); x,y,z near the surface (mesh)."""
    split_seed: Annotated[int, at_least(0)] = 42
    """Seed of the split of a file into training, validation and test points."""

    def check(self) -> None:
        """Raise ValueError for a number that is out of range, and for two sources of points."""
        super().check()
        if self.data is not None and self.target is not None:
            raise ValueError(f"`data` is a file instead of `target` {self.target}; give one of them")


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig(DomainConfig):
    """Train a one-step generator of a density on a plane, sphere, hyperboloid, torus, mesh, ..."""

    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(steps=1_200, lr=1.5e-3, decay_fraction=0.5)
    )
    kernel: SyntheticKernelConfig = field(default_factory=SyntheticKernelConfig)
    network: SyntheticNetworkConfig = field(default_factory=SyntheticNetworkConfig)
    data: SyntheticDataConfig = field(default_factory=SyntheticDataConfig)


SyntheticRun = Run[SyntheticConfig, Problem, SyntheticGenerator]


class SyntheticDomain(Domain[SyntheticConfig, Problem, SyntheticGenerator]):
    """Densities on the plane and on curved spaces.

    Default settings were chosen on validation streams of the four targets on the sphere and the hyperboloid;
    rotations and the product have them, too. Those of the torus and the mesh are the best of a few trials,
    some of which were looked at on the test stream as well. The paper's network and lengthscales are not
    published.
    """

    name = "synthetic"
    config_type = SyntheticConfig
    generator_type = SyntheticGenerator
    examples: ClassVar[Mapping[str, str]] = {
        "--target swiss-roll --space hyperboloid": "another target, another space",
        "--direction displacement --geometry euclidean": "the original method, to compare with",
        "--space torus": "also so3, product (sphere and plane) and mesh",
        "--space so3 --data FILE.csv": "points of a file, here quaternions w,x,y,z",
        "--recipe paper": "as published: Gaussian latents, no codebook",
    }
    notes: ClassVar[ModelNotes] = ModelNotes(
        what="points of a plane, sphere or other space (the setting `space`)",
        data="Points drawn without end from a known density (the setting `target`), or rows of the "
        "user's file (`data`).",
        limits="For research: a test bed, whose density is known.",
    )
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"codebook_size": 0, "decay_fraction": 0.0},
        "torus": {"lengthscale": "4:0.05", "steps": 2_400},
        "mesh": {"kernel": "spectral", "lengthscale": "2:0.3", "steps": 1_600},
    }

    def default_recipe(self, config: SyntheticConfig) -> str | None:
        """The recipe of the space, if it has one; that of a mesh is for the drift on its surface."""
        name, geometry = config.data.space, config.network.geometry
        return name if name in self.recipes and geometry == "intrinsic" else None

    def load(self, config: SyntheticConfig) -> Problem:
        """Target and space, from which data are drawn, or the points of a file."""
        data = config.data
        mesh = None if data.mesh is None else str(data.mesh)
        if data.data is not None:
            return read_problem(data.data, data.space, mesh, data.split_seed)
        return make_problem(data.target, data.space, mesh)

    def generator(self, config: SyntheticConfig, data: Problem) -> SyntheticGenerator:
        """Generator with a codebook, or the plain MLP without."""
        network, mesh = config.network, config.data.mesh
        return SyntheticGenerator(
            config.data.space,
            network.geometry,
            network.codebook_size,
            mesh=None if mesh is None else str(mesh),
        )

    def field(self, config: SyntheticConfig, data: Problem) -> KernelField | SpectralField:
        """Field between batches; raises ValueError for an invalid kernel or lengthscale."""
        settings, manifold = config.kernel, manifold_of(data, config.network.geometry)
        check_kernel(settings.kernel, manifold, config)
        auto = None
        if "auto" in settings.scales:
            points = data.sample(2_048, generator_for(config.run.seed, _DRAWING))
            auto = auto_lengthscale(manifold, points)
        if isinstance(manifold, Surface):
            scales = parse_lengthscales(settings.scales, auto=auto)
            on_surface = partial(surface_kernel, manifold, settings.smoothness)
            return SpectralField(manifold, on_surface, scales, settings.direction)
        kernel = partial(make_kernel, settings.kernel, nu=settings.smoothness)
        scales = checked_lengthscales(settings.scales, kernel, auto)
        return KernelField(manifold, kernel, scales, settings.direction)

    def data_sampler(self, config: SyntheticConfig, data: Problem) -> Sampler:
        """Sampler of fresh points of the target."""
        return data.sample

    def validation(self, config: SyntheticConfig, data: Problem) -> Callable[[SyntheticGenerator], float]:
        """Sliced Wasserstein-2 distance to a fresh sample, or to the validation points of a file."""
        seed = config.run.seed
        reference = data.held_out(VALIDATION, generator_for(seed, _VALIDATING, 0), "val")

        def distance(generator: SyntheticGenerator) -> float:
            samples = generator.sample(VALIDATION, generator_for(seed, _VALIDATING, 1))
            return sliced_wasserstein(data.space.embed(samples), data.space.embed(reference))

        return distance

    def on_step(self, folder: Path, config: SyntheticConfig, data: Problem) -> Callable[[Batch], None]:
        """Hook that saves the samples of a few steps."""
        return write_snapshots(data.space, folder, config.optimizer.steps)

    def sample(self, run: SyntheticRun, n: int, seed: int) -> Samples:
        """Draw n points with a seed."""
        return Samples(run.data.space, run.generator.sample(n, generator_for(seed, _SAMPLING)))

    def write(self, path: Path, samples: Samples) -> None:
        """Write samples in ambient coordinates, followed by those of the chart (CSV)."""
        write_csv(path, *samples)

    def metrics(self, run: SyntheticRun, draws: int, on: Split) -> Metrics:
        """Two-sample statistics against fresh samples of the target."""
        return evaluate(run.generator.sample, run.data, draws, run.config.run.seed, on)

    def figures(self, run: SyntheticRun, samples: Samples) -> None:
        """Draw samples, their evolution over training, and in a chart both directions of the field."""
        figures, problem = run.folder / "figures", run.data
        data = problem.sample(self.num_samples, generator_for(run.config.run.seed, _DRAWING))
        panels = {DATA: data, "Samples": samples.points}
        grid_figure([Row(problem.title, problem, panels)], figures / "samples.png")
        grid_figure([evolution(run)], figures / "evolution.png")
        if isinstance(problem.space, ChartSpace):
            field_figure(problem, *fields_on_lattice(run.config), data, figures / "field.png")


DOMAIN = SyntheticDomain()


def manifold_of(problem: Problem, geometry: Geometry) -> Manifold:
    """Manifold on which samples drift: the space, or the Euclidean space around it."""
    return problem.space.manifold if geometry == "intrinsic" else Euclidean()


def check_kernel(kernel: str, manifold: Manifold, config: SyntheticConfig) -> None:
    """Raise ValueError for a kernel that is not defined on the manifold of a run."""
    space, geometry = config.data.space, config.network.geometry
    if kernel == "spectral" and not isinstance(manifold, Sphere | Surface):
        raise ValueError(
            "`kernel` spectral needs `space` sphere or mesh and `geometry` intrinsic, "
            f"got {space} and {geometry}"
        )
    if kernel != "spectral" and isinstance(manifold, Surface):
        raise ValueError(f"`space` mesh with `geometry` intrinsic needs `kernel` spectral, got {kernel}")


def fields_on_lattice(
    config: SyntheticConfig,
) -> tuple[Float[Tensor, "g d"], dict[str, Float[Tensor, "g d"]]]:
    """Lattice points, and there both directions of the field between data and the untrained generator.

    Annealed lengthscales are taken half-way.
    """
    problem = DOMAIN.load(config)
    x, data = lattice(problem), problem.sample(DOMAIN.num_samples, generator_for(config.run.seed, _DRAWING))
    start = untrained(DOMAIN, config, problem).sample(DOMAIN.num_samples, generator_for(0, _SAMPLING))
    titles = {"Displacement": "displacement", "Kernel gradient": "gradient"}
    fields = {}
    for title, direction in titles.items():
        kernel_field = DOMAIN.field(config.replace(direction=direction), problem)
        halfway = kernel_field.lengthscales.anneal / 2
        fields[title] = kernel_field(Batch(x, data, start, None, progress=halfway)).field
    return x, fields


def evolution(run: SyntheticRun) -> Row:
    """Row of a figure: a run's samples over its training, the last of them by the trained generator."""
    panels = {f"step {step:,}": x for step, x in read_snapshots(run.folder, run.data.space).items()}
    end = DOMAIN.sample(run, run.config.batch.batch_size, seed=0)  # as many as a snapshot holds
    panels[f"step {run.config.optimizer.steps:,}"] = end.points
    return Row(f"{run.config.network.geometry} {run.config.kernel.direction}", run.data, panels)
