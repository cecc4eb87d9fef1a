"""Molecules as a domain: settings, data, generator, field, metrics and figures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from drift_core import Domain, Euclidean, Field, Power, RadialKernel
from drift_core.fields import BalancedField, KernelField
from drift_core.kernel.by_name import make_kernel
from drift_core.lengthscale import checked_lengthscales, parse_lengthscales
from drift_core.runs.config import DomainConfig, KernelConfig, ReportedRunConfig
from drift_core.runs.domain import Run, Split
from drift_core.runs.metrics import Metrics
from drift_core.seeds import generator_for
from drift_core.training.config import (
    BatchConfig,
    FromFile,
    OptimizerConfig,
    Settings,
    check_fraction,
    check_range,
)
from drift_core.training.learner import Sampler
from drift_core.training.loop import resample
from drift_simplex import MAX_CODEBOOK_SIZE, CategoricalField, onehot_lengthscale, window_field
from drift_simplex.generator import Geometry, Latents, Output
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import one_hot

from drift_qm9.data import Molecules, load
from drift_qm9.evaluate import evaluate
from drift_qm9.figures import molecules_figure, properties_figure
from drift_qm9.metrics import bigrams, total_variation
from drift_qm9.model import PRESETS, MoleculeGenerator
from drift_qm9.smi import write_smi
from drift_qm9.tokens import LETTERS, to_smiles

_SAMPLING, _AUTO, _VALIDATING = 2, 3, 4
_AUTO_REFERENCES = 2_048
_REWEIGHTING_RATE = 1.0


@dataclass(frozen=True, kw_only=True)
class MoleculeKernelConfig(KernelConfig):
    """The kernel, the direction of the drift, and what it is the drift of."""

    kernel: Literal["laplace", "gaussian", "matern"] = "matern"
    """Kernel; laplace is the paper's."""
    lengthscale: str | None = None
    """Of whole strings, in total distance: a number, several (0.3,1,3), annealed (3:0.3), or auto;
    none: 1.5:0.15."""
    window: int = 0
    """Positions of the windows whose drift samples follow; 0: whole strings, as published."""
    window_lengthscale: FromFile[str | None] = None
    """Lengthscale of a window's kernel, a product over its positions; none: 1:0.5."""
    reweight: FromFile[float | None] = None
    """Fraction of the training in which data are reweighted so that each attracts an equal share of the
    samples; none: 0.7 for whole strings on the sphere with a codebook, else 0."""

    def check(self) -> None:
        """Raise ValueError for a setting that is out of range or has no effect."""
        super().check()
        check_fraction("reweight", self.reweight)
        if self.window == 0 and self.window_lengthscale is not None:
            raise ValueError("`window_lengthscale` is for windows; it needs `window`")
        if self.window:
            check_range("window", self.window, 2)
            if self.lengthscale is not None:
                raise ValueError("`lengthscale` is for whole strings; windows have `window_lengthscale`")
        parse_lengthscales(self.scales, auto=None if self.window else 1.0)

    @property
    def scales(self) -> str:
        """Lengthscales of windows or of whole strings."""
        if self.window:
            return "1:0.5" if self.window_lengthscale is None else self.window_lengthscale
        return "1.5:0.15" if self.lengthscale is None else self.lengthscale


@dataclass(frozen=True, kw_only=True)
class MoleculeNetworkConfig(Settings):
    """The generator, and the geometry of its outputs."""

    codebook_size: int = 4_096
    """Codebook entries, one of which a string is made from; 0, as published: fresh latents."""
    preset: Literal["mlp", "small", "base"] | None = None
    """mlp for a codebook, or a transformer of 1.2 million (small) or 92 million parameters (base, as
    published); none: mlp with a codebook, small without."""
    geometry: Geometry = "spherical"
    """The sphere's orthant, or R^35 with straight distances, at every position."""
    output: FromFile[Output | None] = None
    """Points of the sphere as |h| / ||h|| of the outputs h, or as sqrt(softmax(h)); none: abs_normalize on
    the sphere, and softmax, the only one, in R^35."""
    latents: FromFile[Latents] = "bernoulli"
    """Latents: Bernoulli (+-1), or normal numbers."""
    global_channels: FromFile[int] = 32
    """Latent channels of a string, where there is no codebook."""
    position_channels: FromFile[int | None] = None
    """Latent channels of each position; none: 0 with a codebook, 4 without."""
    bf16: FromFile[bool] = False
    """Multiply the network's matrices in bfloat16, on a GPU; distances stay in float32."""

    def check(self) -> None:
        """Raise ValueError for a setting that is out of range or contradicts another."""
        check_range("codebook_size", self.codebook_size, 0, MAX_CODEBOOK_SIZE)
        check_range("global_channels", self.global_channels, 1)
        if self.position_channels is not None:
            check_range("position_channels", self.position_channels, 0)
        if self.preset == "mlp" and not self.codebook_size:
            raise ValueError("`preset` mlp reads a codebook, and `codebook_size` is 0; take small or base")
        if self.geometry == "euclidean" and self.output == "abs_normalize":
            raise ValueError("`output` abs_normalize is for the sphere; `geometry` is euclidean")

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of `MoleculeGenerator`."""
        coded, spherical = self.codebook_size > 0, self.geometry == "spherical"
        channels = 0 if coded else 4
        return {
            **PRESETS[self.preset or ("mlp" if coded else "small")],
            "global_channels": self.global_channels,
            "position_channels": channels if self.position_channels is None else self.position_channels,
            "latents": self.latents,
            "codebook_size": self.codebook_size,
            "geometry": self.geometry,
            "output": self.output or ("abs_normalize" if spherical else "softmax"),
            "bf16": self.bf16,
        }


@dataclass(frozen=True, kw_only=True)
class MoleculeDataConfig(Settings):
    """The data."""

    dataset: Literal["toy", "qm9"] = "toy"
    """Toy is enumerated, qm9 is a file of --data-dir."""
    data: Path | None = None
    """File of SMILES, one a line, instead of a data set."""
    data_dir: Path | None = None
    """Folder of the data set; none: $DRIFT_DATA_DIR, else a download."""
    skip_bad: bool = False
    """Leave out, and count, lines that cannot be used."""

    def check(self) -> None:
        """Raise ValueError for two data sets at once, or a setting without effect."""
        if self.data is not None and self.dataset != "toy":
            raise ValueError(f"`data` is a file instead of `dataset` {self.dataset}; give one of them")
        if self.skip_bad and self.is_toy:
            raise ValueError("`skip_bad` is for files; `dataset` toy is enumerated")

    @property
    def is_toy(self) -> bool:
        """Whether the data are enumerated."""
        return self.dataset == "toy" and self.data is None


@dataclass(frozen=True, kw_only=True)
class MoleculeConfig(DomainConfig):
    """Train a one-step generator of molecules, written as SMILES. The defaults suit a CPU."""

    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            steps=400, lr=3e-3, step_size=0.2, warmup_steps=20, decay_fraction=0.5
        )
    )
    batch: BatchConfig = field(
        default_factory=lambda: BatchConfig(batch_size=256, num_positives=1_000_000)  # all data
    )
    kernel: MoleculeKernelConfig = field(default_factory=MoleculeKernelConfig)
    network: MoleculeNetworkConfig = field(default_factory=MoleculeNetworkConfig)
    data: MoleculeDataConfig = field(default_factory=MoleculeDataConfig)
    run: ReportedRunConfig = field(default_factory=lambda: ReportedRunConfig(log_every=10))

    def check(self) -> None:
        """Raise ValueError for settings that are out of range or contradict one another."""
        super().check()
        if self.kernel.reweight and not self._can_reweight:
            raise ValueError(
                "`reweight` is for whole strings on the sphere with a codebook: "
                "it needs `window` 0, `geometry` spherical and a `codebook_size`"
            )
        if self.kernel.window and self.network.geometry == "euclidean":
            raise ValueError("`window` is for the sphere; `geometry` euclidean is of whole strings")

    @property
    def reweight(self) -> float:
        """Fraction of the training in which data are reweighted."""
        given = self.kernel.reweight
        return (0.7 if self._can_reweight else 0.0) if given is None else given

    @property
    def _can_reweight(self) -> bool:
        spherical = self.network.geometry == "spherical"
        return self.network.codebook_size > 0 and self.kernel.window == 0 and spherical


_PAPER: dict[str, Any] = {"steps": 2_400, "codebook_size": 0, "kernel": "laplace", "decay_fraction": 0.0}

MoleculeRun = Run[MoleculeConfig, Molecules, MoleculeGenerator]


class MoleculeDomain(Domain[MoleculeConfig, Molecules, MoleculeGenerator]):
    """Molecules, written as SMILES."""

    name = "qm9"
    config_type = MoleculeConfig
    generator_type = MoleculeGenerator
    samples_file = "samples.smi"
    num_samples = 2_000
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "toy": {},
        "qm9": {"steps": 2_400},
        "paper": {**_PAPER, "output": "softmax", "lengthscale": "auto:0.15"},
        "paper-euclidean": {
            **_PAPER,
            "lengthscale": "auto",
            "geometry": "euclidean",
            "direction": "displacement",
        },
        "reference-gpu": {  # the network and the optimiser of the published code
            **_PAPER,
            "output": "softmax",
            "lengthscale": "auto:0.15",
            "preset": "base",
            "bf16": True,
            "steps": 50_000,
            "batch_size": 1_024,
            "lr": 3e-4,
            "warmup_steps": 1_000,
            "ema_decay": 0.9999,
        },
    }

    def default_recipe(self, config: MoleculeConfig) -> str:
        """Toy for the enumerated data, qm9 for others."""
        return "toy" if config.data.is_toy else "qm9"

    def load(self, config: MoleculeConfig) -> Molecules:
        """Load, tokenise and split the data; raises as `load` does."""
        data = config.data
        return load(data.dataset, data.data, data.data_dir, skip_bad=data.skip_bad)

    def remarks(self, data: Molecules) -> list[str]:
        """How many lines were left out."""
        return [f"{data.skipped:,} lines were skipped"] if data.skipped else []

    def generator(self, config: MoleculeConfig, data: Molecules) -> MoleculeGenerator:
        """Generator of strings as long as the data's."""
        return MoleculeGenerator(length=data.train.shape[1], **config.network.arguments)

    def field(self, config: MoleculeConfig, data: Molecules) -> Field:
        """Field of windows or of whole strings, reweighted or not."""
        settings = config.kernel
        kernel = partial(make_kernel, settings.kernel, nu=settings.smoothness)
        auto = auto_lengthscale(config, kernel, data) if "auto" in settings.scales else None
        scales = checked_lengthscales(settings.scales, kernel, auto)
        if config.network.geometry == "euclidean":
            return KernelField(Power(Euclidean()), kernel, scales, settings.direction)
        strings = CategoricalField(
            len(LETTERS), kernel, scales, settings.direction, product=settings.window > 0
        )
        if settings.window:
            return window_field(strings, data.train.shape[1], settings.window)
        if not config.reweight:
            return strings
        return BalancedField(strings, data.train, until=config.reweight, rate=_REWEIGHTING_RATE)

    def data_sampler(self, config: MoleculeConfig, data: Molecules) -> Sampler:
        """Sampler of tokens, of vertices if the geometry is Euclidean, or of indices if reweighted."""
        if config.reweight:
            return resample(torch.arange(len(data.train)))
        draw = resample(data.train)
        if config.network.geometry == "spherical":
            return draw
        return lambda n, generator: onehot(draw(n, generator))

    def validation(self, config: MoleculeConfig, data: Molecules) -> Callable[[MoleculeGenerator], float]:
        """Total variation of bigrams to the validation split: repetition, length and grammar."""
        real = bigrams(to_smiles(data.val))

        def distance(generator: MoleculeGenerator) -> float:
            drawn = generator.sample(self.num_samples, generator_for(config.run.seed, _VALIDATING))
            return total_variation(bigrams(to_smiles(drawn)), real)

        return distance

    def sample(self, run: MoleculeRun, n: int, seed: int) -> Int64[Tensor, "n length"]:
        """Draw the tokens of n strings with a seed."""
        return run.generator.sample(n, generator_for(seed, _SAMPLING))

    def write(self, path: Path, samples: Int64[Tensor, "n length"]) -> None:
        """Write one string a line (.smi) as it was generated, molecule or not."""
        write_smi(path, to_smiles(samples))

    def metrics(self, run: MoleculeRun, draws: int, on: Split) -> Metrics:
        """Validity, novelty and distances to held-out molecules."""
        return evaluate(run.generator.sample, run.data, on, draws, run.config.run.seed)

    def figures(self, run: MoleculeRun, samples: Int64[Tensor, "n length"]) -> None:
        """Draw molecules, and the distributions of their properties."""
        strings, real, folder = to_smiles(samples), to_smiles(run.data.train), run.folder / "figures"
        molecules_figure(strings, frozenset(real), folder / "molecules.png")
        properties_figure(real[: self.num_samples], strings, folder / "properties.png")


def auto_lengthscale(
    config: MoleculeConfig, kernel: Callable[[float], RadialKernel], data: Molecules
) -> float:
    """Spread of the distances between training molecules, which is what weights depend on."""
    order = torch.randperm(len(data.train), generator=generator_for(config.run.seed, _AUTO))
    references = data.train[order[:_AUTO_REFERENCES]]
    return onehot_lengthscale(kernel, references, len(LETTERS), config.network.geometry)


def onehot(tokens: Int64[Tensor, "m length"]) -> Float[Tensor, "m length vocab"]:
    """Vertices of the simplex, which are the same points in both geometries."""
    return one_hot(tokens, len(LETTERS)).float()
