"""Molecules as a domain: data, generator, field, metrics and figures."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from drift_core import Domain, Euclidean, Field, Power, RadialKernel, SumField
from drift_core.fields import BalancedField, KernelField
from drift_core.kernel.by_name import make_kernel
from drift_core.lengthscale import checked_lengthscales
from drift_core.runs.domain import ModelNotes, Run, Split
from drift_core.runs.metrics import Metrics
from drift_core.seeds import generator_for
from drift_core.training import Matched, Sampler, in_runs, resample
from drift_simplex import CategoricalField, LetterClasses, class_field, onehot_lengthscale, window_field
from jaxtyping import Int64
from torch import Tensor
from torch.nn.functional import one_hot

from drift_qm9.composition import Composition, CompositionField
from drift_qm9.config import MoleculeConfig
from drift_qm9.data import Molecules, load
from drift_qm9.evaluate import evaluate
from drift_qm9.figures import molecules_figure, properties_figure
from drift_qm9.metrics import bigrams, total_variation
from drift_qm9.model import MoleculeGenerator
from drift_qm9.smi import write_smi
from drift_qm9.tokens import EOS

_SAMPLING, _AUTO, _VALIDATING = 2, 3, 4
_AUTO_REFERENCES = 2_048
_REWEIGHTING_RATE = 1.0
_RUN = 16
"""Samples of each composition in a step."""

_SMALL: dict[str, Any] = {
    "batch_size": 256,
    "num_positives": 2_048,
    "lr": 0.01,
    "preset": "mlp-small",
}

_PAPER: dict[str, Any] = {
    "steps": 2_400,
    "batch_size": 256,
    "num_positives": 1_000_000,  # all data
    "preset": "small",
    "optimizer": "adamw",
    "kernel": "laplace",
    "decay_fraction": 0.0,
    "class_weight": 0.0,
    "given": "nothing",
    "global_channels": 32,
}

MoleculeRun = Run[MoleculeConfig, Molecules, MoleculeGenerator]


class MoleculeDomain(Domain[MoleculeConfig, Molecules, MoleculeGenerator]):
    """Molecules, written as SMILES."""

    name = "qm9"
    config_type = MoleculeConfig
    generator_type = MoleculeGenerator
    samples_file = "samples.smi"
    num_samples = 2_000
    examples: ClassVar[Mapping[str, str]] = {
        "--data FILE.smi": "your own molecules, SMILES, one a line",
        "--dataset qm9": "134 thousand molecules",
        "--recipe selfies": "written as SELFIES, in which every string is a molecule",
        "--recipe codebook": "learned entries instead of fresh latents",
    }
    notes: ClassVar[ModelNotes] = ModelNotes(
        what="small organic molecules, as SMILES",
        data="QM9 (Ramakrishnan et al. 2014: molecules of up to nine atoms of C, N, O and F, canonical"
        " by RDKit), an enumerated space of up to six atoms (`toy`), or the user's file: the "
        "setting `dataset` or `data` says which.",
        limits="For research. A sample need not be a molecule (`valid`), new (`novel`), stable or "
        "possible to make. Of the candidates `best_of` in this folder's config.json each is the first that "
        "the network is sure of, or the surest. A generator with a codebook (the setting `codebook_size`) "
        "recites training molecules.",
        sampling="generator.to_smiles(generator.sample(1_000, torch.Generator().manual_seed(0)))",
    )
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "toy": {
            **_SMALL,
            "steps": 1_000,
            "lr": 0.007,
            "decay_fraction": 0.8,
            "global_channels": 18,
            "class_weight": 0.0,
            "best_of": 6,
        },
        "quick": {**_SMALL, "steps": 800},
        "qm9": {"steps": 4_000, "lengthscale": "1.5:0.8"},
        "selfies": {"notation": "selfies", "lengthscale": "1.5:0.6"},
        "codebook": {  # learned entries instead of fresh latents: it recites
            "steps": 2_400,
            "batch_size": 256,
            "num_positives": 1_000_000,
            "codebook_size": 8_192,
            "lengthscale": "1.5:0.15",
            "optimizer": "adamw",
        },
        "qm9-gpu": {
            "steps": 3_200,
            "batch_size": 2_048,
            "num_positives": 16_384,
            "preset": "mlp-large",
            "bf16": True,
        },
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

    longer: ClassVar[Mapping[str, str]] = {"quick": "qm9"}

    def default_recipe(self, config: MoleculeConfig) -> str:
        """Toy for the enumerated data, quick for the user's own, qm9 for the published."""
        if config.data.data is not None:
            return "quick"
        return "toy" if config.data.is_toy else "qm9"

    def load(self, config: MoleculeConfig) -> Molecules:
        """Load, tokenise and split the data; raises as `load` does."""
        data = config.data
        return load(data.dataset, data.data, data.data_dir, skip_bad=data.skip_bad, notation=data.notation)

    def remarks(self, config: MoleculeConfig, data: Molecules) -> list[str]:
        """How many lines were left out."""
        return [f"{data.skipped:,} lines of {config.data.data} were skipped"] if data.skipped else []

    def generator(self, config: MoleculeConfig, data: Molecules) -> MoleculeGenerator:
        """Generator of strings as long as the data's."""
        length, notation = data.train.shape[1], data.notation.name
        counts = self._compositions(config, data)
        table = (0, 0) if counts is None else tuple(torch.unique(counts, dim=0).shape)
        arguments = config.network.arguments
        generator = MoleculeGenerator(length=length, notation=notation, compositions=table, **arguments)
        if counts is not None:
            generator.learn_compositions(counts)
        return generator

    def field(self, config: MoleculeConfig, data: Molecules) -> Field:
        """Field of whole strings, of classes of letters and of windows, or of whole strings alone."""
        settings, letters = config.kernel, len(data.notation.letters)
        kernel = partial(make_kernel, settings.kernel, nu=settings.smoothness)
        auto = None
        if "auto" in settings.lengthscale:
            order = torch.randperm(len(data.train), generator=generator_for(config.run.seed, _AUTO))
            references = data.train[order[:_AUTO_REFERENCES]]
            auto = onehot_lengthscale(kernel, references, letters, config.network.geometry)
        scales = checked_lengthscales(settings.lengthscale, kernel, auto)
        if config.network.geometry == "euclidean":
            return KernelField(Power(Euclidean()), kernel, scales, settings.direction)
        strings = CategoricalField(letters, kernel, scales, settings.direction)
        if config.reweight:
            return BalancedField(strings, data.train, until=config.reweight, rate=_REWEIGHTING_RATE)
        given = drawn_first(config, data)
        whole = CompositionField(strings, given) if given else strings
        parts = [(1.0, whole), *self._local_fields(config, data, kernel)]
        return SumField([part for _, part in parts], [weight for weight, _ in parts])

    def _local_fields(
        self, config: MoleculeConfig, data: Molecules, kernel: Callable[[float], RadialKernel]
    ) -> list[tuple[float, Field]]:
        """Fields of classes of letters and of windows, with their weights, unless these are 0."""
        settings, (by_class, by_window) = config.kernel, config.weights
        given, notation = drawn_first(config, data), data.notation
        found: list[tuple[float, Field]] = []
        if by_class:
            scales = checked_lengthscales(settings.class_lengthscale, kernel)
            coarse: Field = CategoricalField(max(notation.classes) + 1, kernel, scales, settings.direction)
            if given:
                coarse = CompositionField(coarse, *given.of_classes(notation.classes))
            found.append((by_class, class_field(LetterClasses(notation.classes), coarse, data.train)))
        if by_window:
            scales = checked_lengthscales(settings.window_lengthscale, kernel)
            letters = CategoricalField(
                len(notation.letters), kernel, scales, settings.direction, product=True
            )
            windows: Field = window_field(letters, data.train.shape[1], settings.window)
            found.append((by_window, CompositionField(windows, given) if given else windows))
        return found

    def data_sampler(self, config: MoleculeConfig, data: Molecules) -> Sampler:
        """Sampler of tokens, of vertices if the geometry is Euclidean, or of indices if reweighted."""
        if config.reweight:
            return resample(torch.arange(len(data.train)))
        letters, counts = len(data.notation.letters), self._compositions(config, data)
        draw = resample(data.train) if counts is None else Matched(data.train, counts)
        if config.network.geometry == "spherical":
            return draw
        return lambda n, generator: one_hot(draw(n, generator), letters).float()

    def condition_sampler(self, config: MoleculeConfig, data: Molecules) -> Sampler | None:
        """Sampler of the compositions of training molecules, each for some samples, if these are given."""
        counts = self._compositions(config, data)
        return None if counts is None else in_runs(counts, _RUN)

    def _compositions(self, config: MoleculeConfig, data: Molecules) -> Int64[Tensor, "n counts"] | None:
        """Compositions of training molecules, if these are given."""
        given = drawn_first(config, data)
        return given(data.train) if given else None

    def validation(self, config: MoleculeConfig, data: Molecules) -> Callable[[MoleculeGenerator], float]:
        """Total variation of bigrams to the validation split: repetition, length and grammar."""
        written = data.notation.to_smiles
        real = bigrams(written(data.val))

        def distance(generator: MoleculeGenerator) -> float:
            drawn = generator.sample(self.num_samples, generator_for(config.run.seed, _VALIDATING))
            return total_variation(bigrams(written(drawn)), real)

        return distance

    def sample(self, run: MoleculeRun, n: int, seed: int) -> list[str]:
        """Draw n strings with a seed, as SMILES."""
        return run.generator.to_smiles(run.generator.sample(n, generator_for(seed, _SAMPLING)))

    def write(self, path: Path, samples: list[str]) -> None:
        """Write one string a line (.smi) as it was generated, molecule or not."""
        write_smi(path, samples)

    def metrics(self, run: MoleculeRun, draws: int, on: Split) -> Metrics:
        """Validity, novelty and distances to held-out molecules."""
        return evaluate(run.generator.sample, run.data, on, draws, run.config.run.seed)

    def figures(self, run: MoleculeRun, samples: list[str]) -> None:
        """Draw molecules, and the distributions of their properties."""
        real, folder = run.data.notation.to_smiles(run.data.train), run.folder / "figures"
        molecules_figure(samples, frozenset(real), folder / "molecules.png")
        properties_figure(real[: self.num_samples], samples, folder / "properties.png")


def drawn_first(config: MoleculeConfig, data: Molecules) -> Composition | None:
    """What of a string is drawn before the string."""
    drawn = config.network.drawn
    if drawn == "nothing":
        return None
    return data.notation.composition if drawn == "composition" else Composition(EOS)
