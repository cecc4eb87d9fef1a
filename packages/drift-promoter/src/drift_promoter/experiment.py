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

from drift_promoter.bases import LETTERS
from drift_promoter.data import Promoters, Windows, load
from drift_promoter.evaluate import evaluate
from drift_promoter.fasta import write_fasta
from drift_promoter.field import WholeField
from drift_promoter.figures import kmer_figure, logo_figure, signal_figure
from drift_promoter.metrics import kmer_correlation, kmer_counts
from drift_promoter.model import PRESETS, PromoterGenerator, Readout
from drift_promoter.places import draw_places, draw_signals
from drift_promoter.similarity import Similarity
from drift_promoter.stretches import Repel, StretchField
from drift_promoter.toy import placed

DOMAIN = "promoter"
SAMPLES = 1_000
"""Sequences in a run's samples.fasta and figures."""
VALIDATION = 512
"""Sequences that are drawn to score a checkpoint."""
LONGEST_WORD = 10
"""Base pairs of the longest stretches whose words are counted."""
MOST_REPELLING: dict[Repel, int] = {"points": 1_024, "letters": 16_384, "drawn": 16_384}
"""Stretches of samples that repel at each step: pairs of points cost much more than lookups of letters."""
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
    """Training windows that attract at each step, a stretch of each where --stretch is not 0; stretches of up
    to 10 base pairs without conditions are attracted by all of them."""
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
    stretch: int = 8
    """Base pairs of the stretches whose drift samples follow; 0: that of whole sequences, as published."""
    stretch_lengthscale: str = "1.3:0.7"
    """Lengthscale of the kernel of a stretch, the product over its positions of --kernel of the angle."""
    repel: Literal["auto", "points", "letters", "drawn"] = "auto"
    """Stretches of samples repel as soft points, as their likeliest letters, or as letters drawn from the
    distributions that they are; auto: letters on toy, drawn on other data."""
    readout: Literal["auto", "likeliest", "drawn"] = "auto"
    """Letters of a sequence are the likeliest at each position, or are drawn; auto: as they repel."""
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
    signal_kinds: int | None = None
    """Kinds of signals around a stretch of up to 10 base pairs: all of the data of one kind attract, which a
    table counts; 0: signals of stretches that are drawn are compared; none: 16 if letters are drawn on other
    data than toy."""
    output: Literal["abs_normalize", "softmax"] = "abs_normalize"
    """Points of the sphere as |h| / ||h|| of the network's outputs h, or as sqrt(softmax(h))."""
    noise: Literal["binary", "gaussian"] = "binary"
    """Noise: fair signs, or normal numbers."""
    global_noise: int = 32
    """Numbers of noise of a sequence, which modulate every block."""
    position_noise: int = 8
    """Numbers of noise at each position."""
    words: int = 0
    """Learnt words that sequences start from, drawn at random for each --word-length positions; 0: none."""
    word_length: int = 64
    """Base pairs of a word."""
    bf16: bool = False
    """Multiply the network's matrices in bfloat16, on a GPU; distances stay in float32."""

    def __post_init__(self) -> None:
        toy = self.dataset == "toy" and self.tss is None
        self.steps = self.steps or (300 if toy else 20_000)
        self.batch_size = self.batch_size or (64 if toy else 32)
        if self.stretch and self.geometry == "euclidean":
            self.stretch = 0
        if self.repel == "auto":
            self.repel = "letters" if toy else "drawn"
        if self.signal_kinds is None:
            counted = self.repel == "drawn" and 0 < self.stretch <= LONGEST_WORD
            self.signal_kinds = 16 if counted and not toy else 0
        if self.readout == "auto":
            self.readout = "drawn" if self.stretch and self.repel == "drawn" else "likeliest"
        super().__post_init__()
        check_range("--global-noise", self.global_noise, 1)
        check_range("--position-noise", self.position_noise, 1)
        check_range("--signal-kinds", self.signal_kinds, 0)
        check_range("--words", self.words, 0)
        check_range("--word-length", self.word_length, 1)
        if self.stretch:
            check_range("--stretch", self.stretch, 2)
        if self.signal_tracks == 1 and not self.condition:
            raise ValueError("--signal-tracks is for conditions; --no-condition leaves none")
        if not 0 < self.signal_lengthscale < math.inf:
            raise ValueError(f"--signal-lengthscale must be positive, got {self.signal_lengthscale}")
        # Both are refused here even where only one is used.
        parse_lengthscales(self.lengthscale, auto=1.0)
        if "auto" in self.stretch_lengthscale:
            raise ValueError(f"--stretch-lengthscale {self.stretch_lengthscale}: auto is for --lengthscale")
        parse_lengthscales(self.stretch_lengthscale)


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

    Raises ValueError for words that do not fill a sequence.
    """
    length = data.train.length
    if config.words and length % config.word_length:
        raise ValueError(
            f"--word-length must divide the length of a sequence, {length}; got {config.word_length}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return PromoterGenerator(
            length=length,
            width=PRESETS[config.preset]["width"],
            blocks=PRESETS[config.preset]["blocks"],
            condition=config.condition,
            global_noise=config.global_noise,
            position_noise=config.position_noise,
            noise=config.noise,
            geometry=config.geometry,
            output=config.output,
            readout=cast(Readout, config.readout),
            words=config.words,
            word_length=config.word_length,
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
        _stretch_field(config, kernel, data.train, similarity)
        if config.stretch
        else _whole_field(config, kernel, data.train, similarity)
    )
    longest_step(field.manifold, config.max_step)
    return field


def _stretch_field(
    config: Config, kernel: Callable[[float], RadialKernel], data: Windows, similarity: Similarity | None
) -> StretchField:
    scales = checked_lengthscales(config.stretch_lengthscale, kernel)
    letters = CategoricalField(len(LETTERS), kernel, scales, config.direction, product=True)
    repel = cast(Repel, config.repel)
    return StretchField(
        letters,
        data,
        similarity,
        config.stretch,
        repel,
        MOST_REPELLING[repel],
        config.signal_kinds or 0,
        config.seed,
    )


def _whole_field(
    config: Config, kernel: Callable[[float], RadialKernel], data: Windows, similarity: Similarity | None
) -> WholeField:
    auto = _auto(config, kernel, data) if "auto" in config.lengthscale else None
    scales = checked_lengthscales(config.lengthscale, kernel, auto)
    if config.geometry == "spherical":
        return WholeField(CategoricalField(len(LETTERS), kernel, scales, config.direction), data, similarity)
    return WholeField(KernelField(Power(Euclidean()), kernel, scales, config.direction), data, similarity)


def _auto(config: Config, kernel: Callable[[float], RadialKernel], data: Windows) -> float:
    """Spread of the distances between training windows, which is what weights depend on."""
    rows = torch.randperm(len(data), generator=generator_for(config.seed, _AUTO))[:_AUTO_REFERENCES]
    return onehot_lengthscale(kernel, data.tokens(rows), len(LETTERS), config.geometry)


def positives(config: Config, data: Promoters) -> Callable[[int, torch.Generator], Tensor]:
    """Sampler of places in the training data, for `train`."""
    return draw_places(data.train, config.stretch or data.train.length)


def conditions(config: Config, data: Promoters) -> Callable[[int, torch.Generator], Tensor] | None:
    """Sampler of training signals, for `train`; None for a generator without conditions."""
    return draw_signals(data.train) if config.condition else None


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
