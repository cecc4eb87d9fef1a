"""A run on promoters: its settings, its parts, and the report that it ends with."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, cast

import torch
from drift_core import Euclidean, Field, KernelField, Laplace, Power, RadialKernel, longest_step
from drift_core.kernel.by_name import make_kernel
from drift_core.lengthscale import checked_lengthscales, parse_lengthscales
from drift_core.runs.figures import training_figure
from drift_core.runs.folder import read_config, restore_config
from drift_core.runs.metrics import Metrics
from drift_core.runs.model import load_model, save_model
from drift_core.seeds import generator_for
from drift_core.training.config import RunConfig, check_range
from drift_core.training.records import read_records
from drift_simplex import CategoricalField, onehot_lengthscale
from jaxtyping import Float, Int64
from torch import Tensor
from tqdm.auto import tqdm

from drift_promoter.bases import VOCABULARY
from drift_promoter.clusters import fit_clusters
from drift_promoter.crop_field import CropField
from drift_promoter.crops import Crops, crop_indices, signal_sampler
from drift_promoter.data import Promoters, Windows, load
from drift_promoter.evaluate import evaluate
from drift_promoter.fasta import write_fasta
from drift_promoter.field import SequenceField
from drift_promoter.figures import kmer_figure, logo_figure, signal_figure
from drift_promoter.kmer_field import LONGEST_KMER, KmerField
from drift_promoter.metrics import kmer_correlation, kmer_counts
from drift_promoter.model import PRESETS, PromoterGenerator, Readout
from drift_promoter.similarity import Similarity
from drift_promoter.toy import placed

DOMAIN = "promoter"
SAMPLES = 1_000
"""Sequences in a run's samples.fasta and figures."""
VALIDATION = 512
"""Sequences that are drawn to score a checkpoint."""
CLUSTERS = 16
"""Condition clusters by default."""
_SAMPLING, _AUTO, _VALIDATING = 2, 3, 4
_CONDITIONS, _DRAWS = 3, 4
"""Conditions in a figure, and sequences of each."""
_AUTO_REFERENCES = 2_048


@dataclass(kw_only=True)
class Config(RunConfig):
    """Train a one-step generator of promoter DNA, given the CAGE signal.

    Defaults suit a short run on toy. The network `base` is the benchmark's, whose optimiser settings are
    --batch-size 128 --lr 5e-4; the paper's lengthscales and step sizes are not published.
    """

    steps: int = 0
    """Optimiser steps; 0 stands for 300 on toy (two minutes on a CPU) and 20,000 on other data."""
    batch_size: int = 0
    """Samples per step, over all processes; 0 stands for 64 on toy and 32 on other data."""
    num_positives: int = 8_192
    """Training windows that attract at each step, a crop of each where --crop is not 0; of counted positives
    all of them attract."""
    lr: float = 3e-3
    """Learning rate after the warm-up."""
    warmup: int = 20
    """Steps of linear warm-up of the learning rate."""
    decay_fraction: float = 0.3
    """Fraction of the steps, at the end, over which the learning rate falls linearly to zero; 0: never."""
    weight_decay: float = 0.0
    """Weight decay."""
    step_size: float = 0.1
    """How far samples follow the drift at each step."""
    log_every: int = 10
    """Steps between two lines of metrics.jsonl."""
    crop: int = 8
    """Base pairs of the crops whose drift samples follow; 0: whole sequences, as published."""
    crop_lengthscale: str = "1.3:0.7"
    """Lengthscale of the kernel of a crop, the product over its positions of --kernel of the angle."""
    positives: Literal["counted", "sampled"] | None = None
    """Crops that attract: all of the data, counted as k-mers of up to 10 base pairs, or those of sampled
    windows. None: sampled on toy, counted on other data where the crops are short enough."""
    readout: Literal["argmax", "sampled"] | None = None
    """Letters of a sequence, where it is read and where it repels: the most likely at each position, or
    sampled from its distributions. None: sampled with counted positives, else argmax."""
    lengthscale: str = "auto"
    """Lengthscale of whole sequences in units of total distance: a number, several, annealed, or auto: the
    spread of the distances between the data."""
    dataset: Literal["toy", "promoter"] = "toy"
    """Data set; toy is generated, promoter is read from --data-dir."""
    tss: Path | None = None
    """Table of start sites (chr, TSS, strand) in the data folder's coordinates, not the benchmark's."""
    preset: Literal["small", "base"] = "small"
    """Network: small (0.5 million parameters at 1,024 bp) or base (15 million, as published)."""
    geometry: Literal["spherical", "euclidean"] = "spherical"
    """Drift on the orthant of the sphere, or of whole sequences in R^4 at every position."""
    condition: bool = True
    """Generate for a given CAGE signal, or without one."""
    signal_tracks: Literal[1, 2] = 2
    """Tracks of the signal that condition: 1 is that of the promoter's own strand alone, the paper's
    signal_1c; 2 adds that of the other strand."""
    signal_lengthscale: float = 0.05
    """Lengthscale of the Laplace kernel that compares signals, whose shapes are vectors of length 1."""
    condition_clusters: int | None = None
    """Clusters of the signals around crops, for each of which k-mers are counted. None: 16 with counted
    positives and conditions, else 0."""
    output: Literal["abs_normalize", "softmax"] = "abs_normalize"
    """Points of the sphere as |h| / ||h|| of the network's outputs h, or as sqrt(softmax(h))."""
    latents: Literal["bernoulli", "gaussian"] = "bernoulli"
    """Latents: +-1 with equal probability, or standard normal."""
    global_channels: int = 32
    """Latent channels of a sequence, which modulate every block."""
    position_channels: int = 8
    """Latent channels at each position."""
    codebook_size: int = 0
    """Learnt codebook entries that sequences start from, one at random for each --codebook-span positions;
    0: none."""
    codebook_span: int = 64
    """Base pairs of a codebook entry."""
    bf16: bool = False
    """Multiply the network's matrices in bfloat16, on a GPU; distances stay in float32."""

    def __post_init__(self) -> None:
        toy = self.dataset == "toy" and self.tss is None
        self.steps = self.steps or (300 if toy else 20_000)
        self.batch_size = self.batch_size or (64 if toy else 32)
        if self.geometry == "euclidean":
            self.crop = 0
        if self.positives is None:
            self.positives = "counted" if not toy and 0 < self.crop <= LONGEST_KMER else "sampled"
        counted = self.positives == "counted"
        if self.readout is None:
            self.readout = "sampled" if counted else "argmax"
        if self.condition_clusters is None:
            self.condition_clusters = CLUSTERS if counted and self.condition else 0
        super().__post_init__()
        check_range("--global-channels", self.global_channels, 1)
        check_range("--position-channels", self.position_channels, 1)
        check_range("--codebook-size", self.codebook_size, 0)
        check_range("--codebook-span", self.codebook_span, 1)
        if self.crop:
            check_range("--crop", self.crop, 2)
        self._check_positives(self.condition_clusters)
        self._check_conditions()

    def _check_positives(self, clusters: int) -> None:
        check_range("--condition-clusters", clusters, 0)
        counted = self.positives == "counted"
        if counted and not 0 < self.crop <= LONGEST_KMER:
            needs = f"--positives counted needs a --crop of 2 to {LONGEST_KMER} and --geometry spherical"
            raise ValueError(f"{needs}, got {self.crop} and {self.geometry}")
        if counted and self.readout == "argmax":
            raise ValueError("--positives counted needs --readout sampled, got argmax")
        if counted and self.condition and not clusters:
            needs = "--positives counted with conditions needs --condition-clusters of at least 1"
            raise ValueError(f"{needs}, got {clusters}")
        if clusters and not (counted and self.condition):
            needs = "--condition-clusters needs --positives counted and --condition"
            given = "--condition" if self.condition else "--no-condition"
            raise ValueError(f"{needs}; got {clusters}, {self.positives} and {given}")

    def _check_conditions(self) -> None:
        if self.signal_tracks == 1 and not self.condition:
            raise ValueError("--signal-tracks is for conditions; --no-condition leaves none")
        if not 0 < self.signal_lengthscale < math.inf:
            raise ValueError(f"--signal-lengthscale must be positive, got {self.signal_lengthscale}")
        # Both are refused here even where only one is used.
        parse_lengthscales(self.lengthscale, auto=1.0)
        if "auto" in self.crop_lengthscale:
            raise ValueError(f"--crop-lengthscale {self.crop_lengthscale}: auto is for --lengthscale")
        parse_lengthscales(self.crop_lengthscale)


class Sampler(NamedTuple):
    """A generator, and the data for whose signals it generates."""

    generator: PromoterGenerator
    data: Promoters

    def generate(self, signals: Float[Tensor, "n L tracks"], random: torch.Generator) -> Int64[Tensor, "n L"]:
        """Draw a sequence for each signal."""
        given = signals if self.generator.conditional else None
        return self.generator.sample(len(signals), random, given)


class Samples(NamedTuple):
    """Generated sequences and the windows whose signals they were generated for."""

    tokens: Int64[Tensor, "n L"]
    names: list[str]


def load_data(config: Config) -> Promoters:
    """Data of a run; raises as `load` does."""
    return load(config.dataset, config.tss, config.data_dir, tracks=config.signal_tracks)


def make_generator(config: Config, data: Promoters) -> PromoterGenerator:
    """Untrained generator of sequences as long as the data's, the same for the same seed.

    Raises ValueError for codebook entries that do not fill a sequence.
    """
    length = data.train.length
    if config.codebook_size and length % config.codebook_span:
        raise ValueError(
            f"--codebook-span must divide the length of a sequence, {length}; got {config.codebook_span}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return PromoterGenerator(
            length=length,
            width=PRESETS[config.preset]["width"],
            blocks=PRESETS[config.preset]["blocks"],
            condition=config.condition,
            global_channels=config.global_channels,
            position_channels=config.position_channels,
            latents=config.latents,
            geometry=config.geometry,
            output=config.output,
            readout=cast(Readout, config.readout),
            codebook_size=config.codebook_size,
            codebook_span=config.codebook_span,
            bf16=config.bf16,
            tracks=data.train.tracks,
        )


def make_field(config: Config, data: Promoters) -> Field:
    """Drift field of a run; raises ValueError for a kernel, lengthscale or step that is refused."""
    if config.kernel == "spectral":
        raise ValueError("--kernel spectral lives on one sphere; sequences are points on one a position")
    kernel = partial(make_kernel, config.kernel, nu=config.nu)
    similarity = Similarity(Laplace(config.signal_lengthscale)) if config.condition else None
    field = (
        _crop_field(config, kernel, data.train, similarity)
        if config.crop
        else _sequence_field(config, kernel, data.train, similarity)
    )
    longest_step(field.manifold, config.max_step)
    return field


def _crop_field(
    config: Config, kernel: Callable[[float], RadialKernel], data: Windows, similarity: Similarity | None
) -> CropField | KmerField:
    scales = checked_lengthscales(config.crop_lengthscale, kernel)
    letters = CategoricalField(len(VOCABULARY), kernel, scales, config.direction, product=True)
    crops, seed = Crops(data.length, config.crop), config.seed
    if config.positives == "sampled":
        readout = cast(Readout, config.readout)
        return CropField(letters, data, similarity, config.crop, readout, seed=seed)
    count = config.condition_clusters
    clusters = fit_clusters(data, crops, count, seed) if count else None
    return KmerField(letters, data, clusters, config.crop, seed)


def _sequence_field(
    config: Config, kernel: Callable[[float], RadialKernel], data: Windows, similarity: Similarity | None
) -> SequenceField:
    auto = _auto(config, kernel, data) if "auto" in config.lengthscale else None
    scales = checked_lengthscales(config.lengthscale, kernel, auto)
    if config.geometry == "spherical":
        letters = CategoricalField(len(VOCABULARY), kernel, scales, config.direction)
        return SequenceField(letters, data, similarity)
    return SequenceField(KernelField(Power(Euclidean()), kernel, scales, config.direction), data, similarity)


def _auto(config: Config, kernel: Callable[[float], RadialKernel], data: Windows) -> float:
    """Spread of the distances between training windows, which is what weights depend on."""
    rows = torch.randperm(len(data), generator=generator_for(config.seed, _AUTO))[:_AUTO_REFERENCES]
    return onehot_lengthscale(kernel, data.tokens(rows), len(VOCABULARY), config.geometry)


def positives(config: Config, data: Promoters) -> Callable[[int, torch.Generator], Tensor]:
    """Sampler of crop indices of the training data, for `train`."""
    return crop_indices(data.train, config.crop or data.train.length)


def conditions(config: Config, data: Promoters) -> Callable[[int, torch.Generator], Tensor] | None:
    """Sampler of training signals, for `train`; None for a generator without conditions."""
    return signal_sampler(data.train) if config.condition else None


def validation(config: Config, data: Promoters) -> Callable[[PromoterGenerator], float] | None:
    """Score by which `train` keeps the best checkpoint; None if there are no windows to validate on.

    It is 1 - the correlation of 6-mers with the validation windows, and where there are motifs, also what
    is missing of their placement.
    """
    if not len(data.val):
        return None
    real = kmer_counts(data.val.tokens(torch.arange(len(data.val))), 6)
    rows = torch.randperm(len(data.val), generator=generator_for(config.seed, _VALIDATING))[:VALIDATION]
    signals = data.val.signals(rows)

    def distance(generator: PromoterGenerator) -> float:
        tokens = Sampler(generator, data).generate(signals, generator_for(config.seed, _VALIDATING, 1))
        missing = 1 - kmer_correlation(kmer_counts(tokens, 6), real)
        return missing + (1 - float(placed(tokens, signals).mean()) if data.motifs else 0.0)

    return distance


def report(run: Path, sampler: Sampler) -> None:
    """Write the model, samples.fasta and the figures of a run."""
    samples = draw(sampler, SAMPLES, seed=0)
    save_model(run / "model", sampler.generator)
    save(run / "samples.fasta", samples)
    train, test, figures = sampler.data.train, sampler.data.test, run / "figures"
    rows = _rows(test, SAMPLES, seed=0)  # those of the samples
    signals, real = test.signals(rows), test.tokens(rows)
    logo_figure(real, signals, samples.tokens, signals, figures / "logos.png")
    known = train.tokens(_rows(train, SAMPLES, seed=0))
    kmer_figure(known, real, samples.tokens, figures / "kmers.png")
    highest = signals[..., 0].amax(1).argsort(descending=True)
    few = highest[torch.linspace(0, len(highest) // 4, _CONDITIONS).long()]
    drawn = [sampler.generate(signals[few], generator_for(0, _SAMPLING, 2, i)) for i in range(_DRAWS)]
    signal_figure(signals[few], real[few], torch.stack(drawn, dim=1), figures / "signals.png")
    training_figure(read_records(run), figures / "training.png")


def score(config: Config, sampler: Sampler, *, draws: int, on: Literal["test", "val"] = "test") -> Metrics:
    """Metrics of a generator against the "test" split, for reports, or "val", for choosing settings."""
    progress = partial(tqdm, desc="evaluate")
    return evaluate(sampler.generate, sampler.data, on, draws, config.seed, progress)


def draw(sampler: Sampler, n: int, seed: int) -> Samples:
    """Draw n sequences with a seed, for the signals of test windows (again from the first if n is larger)."""
    test = sampler.data.test
    rows = _rows(test, n, seed)
    tokens = sampler.generate(test.signals(rows), generator_for(seed, _SAMPLING, 1))
    return Samples(tokens, [f"{name} {i}" for i, name in enumerate(test.names(rows))])


def _rows(windows: Windows, n: int, seed: int) -> Int64[Tensor, " n"]:
    order = torch.randperm(len(windows), generator=generator_for(seed, _SAMPLING))
    return order.repeat(-(-n // len(order)))[:n]


def save(path: Path, samples: Samples) -> None:
    """Write FASTA, the windows whose signals were given in the headers."""
    write_fasta(path, samples.names, samples.tokens)


def load_generator(run: Path) -> Sampler:
    """Trained generator of a run with its data, on a GPU where there is one.

    Raises:
        ValueError: the run has not finished, so that there is no model, or its files are damaged.
        OSError: its data are not where they were.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = load_model(PromoterGenerator, run / "model").eval().to(device)
    return Sampler(generator, load_data(restore_config(Config, read_config(run))))
