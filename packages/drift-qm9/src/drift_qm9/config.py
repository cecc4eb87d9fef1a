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
    Weight,
    at_least,
)
from drift_simplex import MAX_CODEBOOK_SIZE
from drift_simplex.generator import Geometry, Latents, Output

from drift_qm9.model import PRESETS
from drift_qm9.notation import NotationName

Given = Literal["nothing", "length", "composition"]


@dataclass(frozen=True, kw_only=True)
class MoleculeKernelConfig(KernelConfig):
    """The kernel, the direction of the drift, and what it is the drift of."""

    kernel: Literal["laplace", "gaussian", "matern"] = "matern"
    """Kernel; laplace is the paper's."""
    lengthscale: str = "1.5:0.3"
    """Of whole strings, in total distance: a number, several (0.3,1,3), annealed (3:0.3), or auto."""
    class_weight: FromFile[Weight | None] = None
    """Weight of the field of classes of letters, beside that of whole strings, which has weight 1; none: 1
    for fresh latents on the sphere, else 0."""
    class_lengthscale: FromFile[str] = "1.5:0.15"
    """Of whole strings of classes."""
    window_weight: FromFile[Weight | None] = None
    """Weight of the field of windows; none: as `class_weight`."""
    window: FromFile[Annotated[int, at_least(2)]] = 8
    """Positions of a window."""
    window_lengthscale: FromFile[str] = "1:0.4"
    """Of a window's kernel, a product over its positions."""
    reweight: FromFile[Fraction | None] = None
    """Fraction of the training in which data are reweighted so that each attracts an equal share of the
    samples; none: 0.7 for whole strings alone, on the sphere with a codebook, else 0."""

    def check(self) -> None:
        """Raise ValueError for a setting that is out of range."""
        super().check()
        parse_lengthscales(self.lengthscale, auto=1.0)
        for name in ("class_lengthscale", "window_lengthscale"):
            if "auto" in getattr(self, name):
                raise ValueError(f"`{name}` auto: auto is for `lengthscale`, of whole strings")
            parse_lengthscales(getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class MoleculeNetworkConfig(Settings):
    """The generator, and the geometry of its outputs."""

    codebook_size: Annotated[int, at_least(0, MAX_CODEBOOK_SIZE)] = 0
    """Codebook entries, one of which a string is made from; 0, as published: fresh latents."""
    preset: Literal["mlp-small", "mlp", "mlp-large", "small", "base"] = "mlp"
    """An MLP of 1, 3 or 55 million parameters, or a transformer of 1.2 (small) or 92 million (base)."""
    geometry: Geometry = "spherical"
    """The sphere's orthant, or R^35 with straight distances, at every position."""
    output: FromFile[Output | None] = None
    """Points of the sphere as |h| / ||h|| of the outputs h, or as sqrt(softmax(h)); none: abs_normalize on
    the sphere, and softmax, the only one, in R^35."""
    latents: FromFile[Latents] = "bernoulli"
    """Latents: Bernoulli (+-1), or normal numbers."""
    global_channels: FromFile[Annotated[int, at_least(1)]] = 48
    """Latent channels of a string, where there is no codebook."""
    position_channels: FromFile[Annotated[int, at_least(0)] | None] = None
    """Latent channels of each position; none: 4 in a transformer with fresh latents, else 0."""
    given: FromFile[Given | None] = None
    """What of a string is drawn first, as often as it occurs in the data: nothing, its length, or its
    composition: its numbers of tokens, nitrogen, oxygen, ring and branch letters; none: composition with
    fresh latents on the sphere, else nothing."""
    best_of: FromFile[Annotated[int, at_least(1)]] = 1
    """Candidates of which each sample is the first that the network gives a probability of at least 0.7, or
    else the most probable one; 1, as published: it has no choice. Training does not depend on it."""
    bf16: FromFile[bool] = False
    """Multiply the network's matrices in bfloat16, on a GPU; distances stay in float32."""

    def check(self) -> None:
        """Raise ValueError for a setting that is out of range or contradicts another."""
        super().check()
        if self.geometry == "euclidean" and self.output == "abs_normalize":
            raise ValueError("`output` abs_normalize is for the sphere; `geometry` is euclidean")
        if self.given not in (None, "nothing") and not self._fresh:
            raise ValueError(
                f"`given` {self.given} is for fresh latents on the sphere, without a `codebook_size`"
            )

    @property
    def drawn(self) -> Given:
        """What of a string is drawn first."""
        return self.given or ("composition" if self._fresh else "nothing")

    @property
    def _fresh(self) -> bool:
        return self.geometry == "spherical" and not self.codebook_size

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of `MoleculeGenerator`."""
        given, coded = self.flat(), self.codebook_size > 0
        size = PRESETS[given.pop("preset")]
        given["output"] = self.output or ("abs_normalize" if self.geometry == "spherical" else "softmax")
        del given["given"]
        if self.position_channels is None:
            given["position_channels"] = 4 if size["blocks"] and not coded else 0
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
    notation: FromFile[NotationName] = "smiles"
    """SMILES, as published, or SELFIES, in which every string is a molecule."""

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
            steps=2_000, lr=3e-3, step_size=0.2, optimizer="muon", warmup_steps=20, decay_fraction=0.5
        )
    )
    batch: BatchConfig = field(default_factory=lambda: BatchConfig(batch_size=512, num_positives=8_192))
    kernel: MoleculeKernelConfig = field(default_factory=MoleculeKernelConfig)
    network: MoleculeNetworkConfig = field(default_factory=MoleculeNetworkConfig)
    data: MoleculeDataConfig = field(default_factory=MoleculeDataConfig)
    run: ReportedRunConfig = field(default_factory=lambda: ReportedRunConfig(log_every=10))

    def check(self) -> None:
        """Raise ValueError for settings that are out of range or contradict one another."""
        super().check()
        if self.kernel.reweight and not self._can_reweight:
            raise ValueError(
                "`reweight` is for whole strings alone, on the sphere with a codebook: it needs `geometry` "
                "spherical, a `codebook_size`, and `class_weight` and `window_weight` 0"
            )
        if self.network.geometry == "euclidean" and any(self.weights):
            raise ValueError("`class_weight` and `window_weight` are for the sphere; `geometry` is euclidean")

    @property
    def weights(self) -> tuple[float, float]:
        """Weights of the fields of classes and of windows."""
        spherical, fresh = self.network.geometry == "spherical", self.network.codebook_size == 0
        default = 1.0 if spherical and fresh else 0.0
        given = self.kernel.class_weight, self.kernel.window_weight
        first = default if given[0] is None else given[0]
        return first, first if given[1] is None else given[1]

    @property
    def reweight(self) -> float:
        """Fraction of the training in which data are reweighted."""
        given = self.kernel.reweight
        return (0.7 if self._can_reweight else 0.0) if given is None else given

    @property
    def _can_reweight(self) -> bool:
        return (
            self.network.codebook_size > 0 and self.network.geometry == "spherical" and not any(self.weights)
        )
