"""Settings of a run on promoters."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from drift_core.lengthscale import parse_lengthscales
from drift_core.runs.config import DomainConfig, KernelConfig, ReportedRunConfig
from drift_core.training.config import (
    BatchConfig,
    FromFile,
    OptimizerConfig,
    Positive,
    Settings,
    at_least,
    check_range,
)
from drift_simplex.generator import Geometry, Latents, Output

from drift_promoter.kmer_field import LONGEST_KMER
from drift_promoter.model import PRESETS, Decoding

CROP, CLUSTERS = 8, 16
"""Base pairs of crops, and condition clusters, by default."""


@dataclass(frozen=True, kw_only=True)
class PromoterKernelConfig(KernelConfig):
    """The kernel, the direction of the drift, and what it is the drift of."""

    kernel: Literal["laplace", "gaussian", "matern"] = "laplace"
    """Kernel."""
    lengthscale: str | None = None
    """Of whole sequences, in total distance: a number, several, annealed, or auto; none: auto."""
    crop: int | None = None
    """Base pairs of the crops whose drift samples follow; 0: whole sequences, as published; none: 8
    (euclidean: 0)."""
    crop_lengthscale: FromFile[str | None] = None
    """Lengthscale of a crop's kernel, a product over its positions; none: 1.3:0.7."""
    positives: FromFile[Literal["counted", "sampled"] | None] = None
    """Crops that attract: all of the data, counted as k-mers of up to 10 base pairs, or those of sampled
    windows; none: sampled on toy, counted on other data where the crops are short enough."""
    signal_lengthscale: FromFile[Positive] = 0.05
    """Lengthscale of the Laplace kernel that compares signals, whose shapes are vectors of length 1."""
    condition_clusters: FromFile[Annotated[int, at_least(0)] | None] = None
    """Clusters of the signals around crops, for each of which k-mers are counted; none: 16 with counted
    positives and conditions, else 0."""

    def check(self) -> None:
        """Raise ValueError for a setting that is out of range or has no effect."""
        super().check()
        if self.crop:
            check_range("crop", self.crop, 2)
        parse_lengthscales(self.lengthscale or "auto", auto=1.0)
        if "auto" in (self.crop_lengthscale or ""):
            raise ValueError(f"`crop_lengthscale` {self.crop_lengthscale}: auto is for `lengthscale`")
        parse_lengthscales(self.crop_lengthscale or "1")


@dataclass(frozen=True, kw_only=True)
class PromoterNetworkConfig(Settings):
    """The generator, and the geometry of its outputs."""

    preset: Literal["small", "base"] = "small"
    """0.5 million parameters at 1,024 bp, or 15 million, as published."""
    geometry: Geometry = "spherical"
    """The sphere's orthant, or R^4 for whole sequences, at every position."""
    condition: bool = True
    """Generate for a given CAGE signal, or without one."""
    decoding: FromFile[Decoding | None] = None
    """Letters of a sequence, where it is read and where it repels: the most likely at each position, or
    sampled from its distributions; none: sampled with counted positives, else argmax."""
    output: FromFile[Output | None] = None
    """Points of the sphere as |h| / ||h|| of the outputs h, or as sqrt(softmax(h)); none: abs_normalize on
    the sphere, and softmax, the only one, in R^4."""
    latents: FromFile[Latents] = "bernoulli"
    """Latents: Bernoulli (+-1), or normal numbers."""
    global_channels: FromFile[Annotated[int, at_least(1)]] = 32
    """Latent channels of a sequence, which modulate every block."""
    position_channels: FromFile[Annotated[int, at_least(1)]] = 8
    """Latent channels of each position."""
    codebook_size: FromFile[Annotated[int, at_least(0)]] = 0
    """Codebook entries that sequences start from, one for each `codebook_span` positions; 0: none. Condition
    clusters share them evenly, where there are any."""
    codebook_span: FromFile[Annotated[int, at_least(1)]] = 64
    """Base pairs of a codebook entry."""
    bf16: FromFile[bool] = False
    """Multiply the network's matrices in bfloat16, on a GPU; distances stay in float32."""

    def check(self) -> None:
        """Raise ValueError for a setting that is out of range or contradicts another."""
        super().check()
        if self.geometry == "euclidean" and self.output == "abs_normalize":
            raise ValueError("`output` abs_normalize is for the sphere; `geometry` is euclidean")

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of `PromoterGenerator` that do not depend on the data or the field."""
        given = self.flat()
        size = PRESETS[given.pop("preset")]
        del given["decoding"]
        given["output"] = self.output or ("abs_normalize" if self.geometry == "spherical" else "softmax")
        return size | given


@dataclass(frozen=True, kw_only=True)
class PromoterDataConfig(Settings):
    """The data."""

    dataset: Literal["toy", "promoter"] = "toy"
    """Toy is generated, promoter is the files of --data-dir."""
    tss: Path | None = None
    """Table of start sites (chr, TSS, strand), not the benchmark's."""
    data_dir: Path | None = None
    """Folder of the genome and its signal; none: $DRIFT_DATA_DIR."""
    signal_tracks: FromFile[Literal[1, 2]] = 2
    """Tracks of the signal that condition: 1 is that of the promoter's own strand alone, the paper's
    signal_1c; 2 adds that of the other strand."""

    @property
    def is_toy(self) -> bool:
        """Whether the data are generated."""
        return self.dataset == "toy" and self.tss is None


@dataclass(frozen=True, kw_only=True)
class PromoterConfig(DomainConfig):
    """Train a one-step generator of promoter DNA, given the CAGE signal. The defaults suit toy."""

    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            steps=300, lr=3e-3, step_size=0.1, warmup_steps=20, decay_fraction=0.3, weight_decay=0.0
        )
    )
    batch: BatchConfig = field(default_factory=lambda: BatchConfig(batch_size=64, num_positives=8_192))
    kernel: PromoterKernelConfig = field(default_factory=PromoterKernelConfig)
    network: PromoterNetworkConfig = field(default_factory=PromoterNetworkConfig)
    data: PromoterDataConfig = field(default_factory=PromoterDataConfig)
    run: ReportedRunConfig = field(default_factory=lambda: ReportedRunConfig(log_every=10, eval_draws=3))

    def check(self) -> None:
        """Raise ValueError for settings that are out of range or contradict one another."""
        super().check()
        if self.network.geometry == "euclidean" and self.kernel.crop:
            raise ValueError("`crop` is for the sphere; `geometry` euclidean is of whole sequences")
        if not self.crop and self.kernel.crop_lengthscale is not None:
            raise ValueError("`crop_lengthscale` is for crops, not for whole sequences")
        if self.crop and self.kernel.lengthscale is not None:
            raise ValueError(
                "`lengthscale` is for whole sequences, with `crop` 0; crops have `crop_lengthscale`"
            )
        self._check_positives()
        if self.data.signal_tracks == 1 and not self.network.condition:
            raise ValueError("`signal_tracks` is for conditions, and `condition` is off")

    def _check_positives(self) -> None:
        clusters, conditional = self.clusters, self.network.condition
        if self.counted and not 0 < self.crop <= LONGEST_KMER:
            needs = f"`positives` counted needs a `crop` of 2 to {LONGEST_KMER} and `geometry` spherical"
            raise ValueError(f"{needs}, got {self.crop} and {self.network.geometry}")
        if self.counted and self.decoding == "argmax":
            raise ValueError("`positives` counted needs `decoding` sampled, got argmax")
        if self.counted and conditional and not clusters:
            needs = "`positives` counted with `condition` needs `condition_clusters` of at least 1"
            raise ValueError(f"{needs}, got {clusters}")
        if clusters and not (self.counted and conditional):
            raise ValueError("`condition_clusters` needs `positives` counted and `condition`")

    @property
    def crop(self) -> int:
        """Base pairs of the crops; 0 for whole sequences."""
        default = CROP if self.network.geometry == "spherical" else 0
        return default if self.kernel.crop is None else self.kernel.crop

    @property
    def counted(self) -> bool:
        """Whether all k-mers of the data attract."""
        if self.kernel.positives is None:
            return not self.data.is_toy and 0 < self.crop <= LONGEST_KMER
        return self.kernel.positives == "counted"

    @property
    def clusters(self) -> int:
        """Condition clusters for each of which k-mers are counted."""
        default = CLUSTERS if self.counted and self.network.condition else 0
        return default if self.kernel.condition_clusters is None else self.kernel.condition_clusters

    @property
    def decoding(self) -> Decoding:
        """How the letters of a sequence are read."""
        return self.network.decoding or ("sampled" if self.counted else "argmax")
