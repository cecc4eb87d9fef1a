"""Promoters as a domain: data, generator, field, metrics and figures."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from drift_core import Domain, Euclidean, Field, KernelField, Laplace, Power, RadialKernel
from drift_core.kernel.by_name import make_kernel
from drift_core.lengthscale import checked_lengthscales
from drift_core.runs.domain import ModelNotes, Run, Split
from drift_core.runs.metrics import Metrics
from drift_core.seeds import generator_for
from drift_core.training.samplers import Sampler
from drift_simplex import CategoricalField, onehot_lengthscale
from jaxtyping import Float, Int64
from torch import Tensor

from drift_promoter.bases import VOCABULARY
from drift_promoter.clusters import ConditionClusters, fit_clusters
from drift_promoter.config import PromoterConfig
from drift_promoter.crop_field import CropField
from drift_promoter.crops import Crops, crop_indices, signal_sampler
from drift_promoter.data import Promoters, Windows, load
from drift_promoter.evaluate import evaluate
from drift_promoter.fasta import write_fasta
from drift_promoter.field import SequenceField
from drift_promoter.figures import kmer_figure, logo_figure, signal_figure
from drift_promoter.kmer_field import KmerField
from drift_promoter.metrics import kmer_correlation, kmer_counts
from drift_promoter.model import PromoterGenerator
from drift_promoter.similarity import Similarity
from drift_promoter.toy import placed

VALIDATION = 512
"""Sequences that are drawn to score a checkpoint."""
_SAMPLING, _AUTO, _VALIDATING = 2, 3, 4
_CONDITIONS, _DRAWS = 3, 4
"""Conditions in a figure, and sequences of each."""
_AUTO_REFERENCES = 2_048

_FILES: dict[str, Any] = {
    "optimizer": "muon",
    "lr": 2e-3,
    "decay_fraction": 0.5,
    "batch_size": 16,
    "num_negatives": 48,
    "codebook_size": 4_096,
}

KernelOf = Callable[[float], RadialKernel]
"""Maps a lengthscale to a kernel."""

PromoterRun = Run[PromoterConfig, Promoters, PromoterGenerator]


class Samples(NamedTuple):
    """Generated sequences and the windows whose signals they were generated for."""

    tokens: Int64[Tensor, "n L"]
    names: list[str]


class PromoterDomain(Domain[PromoterConfig, Promoters, PromoterGenerator]):
    """Promoter DNA, given the CAGE signal."""

    name = "promoter"
    config_type = PromoterConfig
    generator_type = PromoterGenerator
    samples_file = "samples.fasta"
    num_samples = 1_000
    examples: ClassVar[Mapping[str, str]] = {
        "--no-condition": "DNA without the CAGE signal",
        "--dataset promoter --data-dir DIR": "the benchmark's human promoters",
        "--tss FILE.tsv --data-dir DIR": "your own table of start sites in that genome",
    }
    notes: ClassVar[ModelNotes] = ModelNotes(
        what="promoter DNA, as letters 0 to 3 (A, C, G, T), given the CAGE signal unless it is unconditional",
        data="Human promoters and their CAGE signal (FANTOM; benchmark of Avdeyev et al. 2023, Zenodo "
        "7943307), the user's table of start sites, or generated sequences (`toy`): the setting "
        "`dataset` or `tss` says which.",
        limits="For research. Sequences resemble promoters in their k-mers and in how they follow the "
        "signal; whether they promote transcription was not tested.",
        sampling="generator.sample(len(signal), torch.Generator().manual_seed(0), signal)  # log10(1 + "
        "CAGE), [n, length, tracks]",
    )
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "toy": {},
        "quick": {**_FILES, "steps": 150},
        "promoter": {**_FILES, "steps": 300},
        "promoter-gpu": {
            **_FILES,
            "steps": 20_000,
            "batch_size": 128,
            "num_negatives": 384,
            "codebook_size": 65_536,
            "condition_clusters": 64,
            "preset": "base",
            "bf16": True,
        },
        "paper": {
            "steps": 20_000,
            "batch_size": 128,
            "lr": 5e-4,
            "optimizer": "adam",
            "decay_fraction": 0.0,
            "kernel": "gaussian",
            "crop": 0,
            "output": "softmax",
            "preset": "base",
            "signal_tracks": 1,
        },
    }

    longer: ClassVar[Mapping[str, str]] = {"quick": "promoter"}

    def default_recipe(self, config: PromoterConfig) -> str:
        """Toy for the generated data, quick for the user's own table, promoter for the benchmark's."""
        if config.data.tss is not None:
            return "quick"
        return "toy" if config.data.is_toy else "promoter"

    def load(self, config: PromoterConfig) -> Promoters:
        """Load the data; raises as `load` does."""
        data = config.data
        return load(data.dataset, data.tss, data.data_dir, tracks=data.signal_tracks)

    def remarks(self, config: PromoterConfig, data: Promoters) -> list[str]:
        """How many windows were left out."""
        return [f"{data.skipped:,} windows with an N were skipped"] if data.skipped else []

    def generator(self, config: PromoterConfig, data: Promoters) -> PromoterGenerator:
        """Generator of sequences as long as the data's.

        Raises ValueError for codebook entries that do not fill a sequence.
        """
        length, network = data.train.length, config.network
        if network.codebook_size and length % network.codebook_span:
            raise ValueError(
                f"`codebook_span` must divide the length of a sequence, {length}; got {network.codebook_span}"
            )
        clusters = condition_clusters(config, data.train) if network.codebook_size else None
        generator = PromoterGenerator(
            length=length,
            tracks=data.train.tracks,
            decoding=config.decoding,
            codebook_clusters=0 if clusters is None else len(clusters),
            **network.arguments,
        )
        if generator.clusters is not None and clusters is not None:
            generator.clusters.centres.copy_(clusters.centres)
        return generator

    def field(self, config: PromoterConfig, data: Promoters) -> Field:
        """Field of crops or of whole sequences; raises ValueError for a kernel or lengthscale."""
        kernel = partial(make_kernel, config.kernel.kernel, nu=config.kernel.smoothness)
        near = None
        if config.network.condition and not config.counted:
            near = Similarity(Laplace(config.kernel.signal_lengthscale))
        return (crop_field if config.crop else sequence_field)(config, kernel, data.train, near)

    def data_sampler(self, config: PromoterConfig, data: Promoters) -> Sampler:
        """Sampler of crop indices of the training data."""
        return crop_indices(data.train, config.crop or data.train.length)

    def condition_sampler(self, config: PromoterConfig, data: Promoters) -> Sampler | None:
        """Sampler of training signals."""
        return signal_sampler(data.train) if config.network.condition else None

    def validation(
        self, config: PromoterConfig, data: Promoters
    ) -> Callable[[PromoterGenerator], float] | None:
        """1 - correlation of 6-mers and, where there are motifs, the share that is misplaced."""
        if not len(data.val):
            return None
        seed = config.run.seed
        real = kmer_counts(data.val.tokens(torch.arange(len(data.val))), 6)
        rows = torch.randperm(len(data.val), generator=generator_for(seed, _VALIDATING))[:VALIDATION]
        signals = data.val.signals(rows)

        def distance(generator: PromoterGenerator) -> float:
            tokens = generate(generator, signals, generator_for(seed, _VALIDATING, 1))
            missing = 1 - kmer_correlation(kmer_counts(tokens, 6), real)
            return missing + (1 - float(placed(tokens, signals).mean()) if data.motifs else 0.0)

        return distance

    def sample(self, run: PromoterRun, n: int, seed: int) -> Samples:
        """Draw n sequences for the signals of test windows, again from the first if n is larger."""
        test = run.data.test
        rows = shuffled_rows(test, n, seed)
        tokens = generate(run.generator, test.signals(rows), generator_for(seed, _SAMPLING, 1))
        return Samples(tokens, [f"{name} {i}" for i, name in enumerate(test.names(rows))])

    def write(self, path: Path, samples: Samples) -> None:
        """Write FASTA, the windows whose signals were given in the headers."""
        write_fasta(path, samples.names, samples.tokens)

    def metrics(self, run: PromoterRun, draws: int, on: Split) -> Metrics:
        """K-mer correlations, conditioning and novelty, against held-out windows."""
        return evaluate(partial(generate, run.generator), run.data, on, draws, run.config.run.seed)

    def figures(self, run: PromoterRun, samples: Samples) -> None:
        """Draw sequence logos, k-mer frequencies and sequences of a few signals."""
        train, test, folder = run.data.train, run.data.test, run.folder / "figures"
        rows = shuffled_rows(test, self.num_samples, seed=0)  # those of the samples
        signals, real = test.signals(rows), test.tokens(rows)
        logo_figure(real, signals, samples.tokens, signals, folder / "logos.png")
        known = train.tokens(shuffled_rows(train, self.num_samples, seed=0))
        kmer_figure(known, real, samples.tokens, folder / "kmers.png")
        highest = signals[..., 0].amax(1).argsort(descending=True)
        few = highest[torch.linspace(0, len(highest) // 4, _CONDITIONS).long()]
        randoms = [generator_for(0, _SAMPLING, 2, i) for i in range(_DRAWS)]
        drawn = torch.stack([generate(run.generator, signals[few], random) for random in randoms], dim=1)
        signal_figure(signals[few], real[few], drawn, folder / "signals.png")


def generate(
    generator: PromoterGenerator, signals: Float[Tensor, "n L tracks"], random: torch.Generator
) -> Int64[Tensor, "n L"]:
    """Draw a sequence for each signal."""
    return generator.sample(len(signals), random, signals if generator.conditional else None)


def crop_field(config: PromoterConfig, kernel: KernelOf, data: Windows, near: Similarity | None) -> Field:
    """Field of crops, of which all of the data or those of sampled windows attract."""
    crop, seed = config.crop, config.run.seed
    scales = checked_lengthscales(config.kernel.crop_lengthscale or "1.3:0.7", kernel)
    tokens = CategoricalField(len(VOCABULARY), kernel, scales, config.kernel.direction, product=True)
    if not config.counted:
        return CropField(tokens, data, near, crop, config.decoding, seed=seed)
    return KmerField(tokens, data, condition_clusters(config, data), crop, seed)


def condition_clusters(config: PromoterConfig, data: Windows) -> ConditionClusters | None:
    """Clusters of the signals around crops, if k-mers are counted for each."""
    if not config.clusters:
        return None
    return fit_clusters(data, Crops(data.length, config.crop), config.clusters, config.run.seed)


def sequence_field(config: PromoterConfig, kernel: KernelOf, data: Windows, near: Similarity | None) -> Field:
    """Field of whole sequences."""
    text, direction, auto = config.kernel.lengthscale or "auto", config.kernel.direction, None
    if "auto" in text:
        order = torch.randperm(len(data), generator=generator_for(config.run.seed, _AUTO))
        references = data.tokens(order[:_AUTO_REFERENCES])
        auto = onehot_lengthscale(kernel, references, len(VOCABULARY), config.network.geometry)
    scales = checked_lengthscales(text, kernel, auto)
    if config.network.geometry == "spherical":
        return SequenceField(CategoricalField(len(VOCABULARY), kernel, scales, direction), data, near)
    return SequenceField(KernelField(Power(Euclidean()), kernel, scales, direction), data, near)


def shuffled_rows(windows: Windows, n: int, seed: int) -> Int64[Tensor, " n"]:
    """Rows of n windows in random order, again from the first if there are fewer."""
    order = torch.randperm(len(windows), generator=generator_for(seed, _SAMPLING))
    return order.repeat(-(-n // len(order)))[:n]
