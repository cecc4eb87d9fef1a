"""Settings of a run on molecules."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from drift_core.lengthscale import parse_lengthscales
from drift_core.runs.config import DomainConfig, KernelConfig, ReportedRunConfig
from drift_core.training.config import (
    BatchConfig,
    Fraction,
    FromFile,
    OptimizerConfig,
    Settings,
    at_least,
    check_range,
)
from drift_simplex import MAX_CODEBOOK_SIZE
from drift_simplex.generator import Geometry, Latents, Output

from drift_qm9.model import PRESETS


@dataclass(frozen=True, kw_only=True)
class MoleculeKernelConfig(KernelConfig):
    """The kernel, the direction of the drift, and what it is the drift of."""

    kernel: Literal["laplace", "gaussian", "matern"] = "matern"
    """Kernel; laplace is the paper's."""
    lengthscale: str | None = None
    """Of whole strings, in total distance: a number, several (0.3,1,3), annealed (3:0.3), or auto;
    none: 1.5:0.15."""
    window: FromFile[int] = 0
    """Positions of the windows whose drift samples follow; 0: whole strings, as published."""
    window_lengthscale: FromFile[str | None] = None
    """Lengthscale of a window's kernel, a product over its positions; none: 1:0.5."""
    reweight: FromFile[Fraction | None] = None
    """Fraction of the training in which data are reweighted so that each attracts an equal share of the
    samples; none: 0.7 for whole strings on the sphere with a codebook, else 0."""

    def check(self) -> None:
        """Raise ValueError for a setting that is out of range or has no effect."""
        super().check()
        if self.window == 0 and self.window_lengthscale is not None:
            raise ValueError("`window_lengthscale` is for windows; it needs `window`")
        if self.window:
            check_range("window", self.window, 2)
            if self.lengthscale is not None:
                raise ValueError("`lengthscale` is for whole strings; windows have `window_lengthscale`")
            if "auto" in self.scales:
                raise ValueError("`window_lengthscale` auto: auto is for `lengthscale`, of whole strings")
        parse_lengthscales(self.scales, auto=1.0)

    @property
    def scales(self) -> str:
        """Lengthscales of windows or of whole strings."""
        if self.window:
            return "1:0.5" if self.window_lengthscale is None else self.window_lengthscale
        return "1.5:0.15" if self.lengthscale is None else self.lengthscale


@dataclass(frozen=True, kw_only=True)
class MoleculeNetworkConfig(Settings):
    """The generator, and the geometry of its outputs."""

    codebook_size: Annotated[int, at_least(0, MAX_CODEBOOK_SIZE)] = 4_096
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
    global_channels: FromFile[Annotated[int, at_least(1)]] = 32
    """Latent channels of a string, where there is no codebook."""
    position_channels: FromFile[Annotated[int, at_least(0)] | None] = None
    """Latent channels of each position; none: 0 with a codebook, 4 without."""
    bf16: FromFile[bool] = False
    """Multiply the network's matrices in bfloat16, on a GPU; distances stay in float32."""

    def check(self) -> None:
        """Raise ValueError for a setting that is out of range or contradicts another."""
        super().check()
        if self.preset == "mlp" and not self.codebook_size:
            raise ValueError("`preset` mlp reads a codebook, and `codebook_size` is 0; take small or base")
        if self.geometry == "euclidean" and self.output == "abs_normalize":
            raise ValueError("`output` abs_normalize is for the sphere; `geometry` is euclidean")

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of `MoleculeGenerator`."""
        given, coded = self.flat(), self.codebook_size > 0
        size = PRESETS[given.pop("preset") or ("mlp" if coded else "small")]
        given["output"] = self.output or ("abs_normalize" if self.geometry == "spherical" else "softmax")
        if self.position_channels is None:
            given["position_channels"] = 0 if coded else 4
        return size | given


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
