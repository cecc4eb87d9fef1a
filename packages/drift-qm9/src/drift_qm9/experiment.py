"""A run on molecules: its settings, its parts, and the report that it ends with."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from drift_core import Euclidean, Field, Power, RadialKernel, longest_step
from drift_core.fields import BalancedField, KernelField
from drift_core.kernel.by_name import make_kernel
from drift_core.lengthscale import checked_lengthscales, parse_lengthscales
from drift_core.runs.figures import training_figure
from drift_core.runs.metrics import Metrics
from drift_core.runs.model import load_model, save_model
from drift_core.seeds import generator_for
from drift_core.training.config import RunConfig, check_range
from drift_core.training.loop import resample
from drift_core.training.records import read_records
from drift_simplex import MAX_CODEBOOK_SIZE, CategoricalField, onehot_lengthscale, window_field
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import one_hot
from tqdm.auto import tqdm

from drift_qm9.data import Molecules, load
from drift_qm9.evaluate import evaluate
from drift_qm9.figures import molecules_figure, properties_figure
from drift_qm9.metrics import bigrams, total_variation
from drift_qm9.model import PRESETS, MoleculeGenerator
from drift_qm9.smi import write_smi
from drift_qm9.tokens import LETTERS, to_smiles

DOMAIN = "qm9"
SAMPLES = 2_000
"""Strings in a run's samples.smi and figures."""
_SAMPLING, _AUTO, _VALIDATING = 2, 3, 4
_AUTO_REFERENCES = 2_048
_BALANCE_RATE = 1.0


@dataclass(kw_only=True)
class Config(RunConfig):
    """Train a one-step generator of molecules, written as SMILES.

    Defaults suit a CPU. The reference's network is --preset base --codes 0, its optimiser --steps 50000
    --batch-size 1024 --lr 3e-4 --warmup 1000 --ema-decay 0.9999, and the paper's points and kernel are
    --output softmax --kernel laplace; its lengthscale and step size are not published.
    """

    steps: int = 0
    """Optimiser steps; 0 stands for 400 on toy (a minute on two cores) and 2,400 on other data."""
    batch_size: int = 256
    """Samples per step, over all processes."""
    num_positives: int = 1_000_000
    """Molecules that attract at each step; the whole training set where there are no more; 0 stands for the
    batch size."""
    lr: float = 3e-3
    """Learning rate after the warm-up."""
    warmup: int = 20
    """Steps of linear warm-up of the learning rate."""
    decay_fraction: float = 0.5
    """Fraction of the steps, at the end, over which the learning rate falls linearly to zero; 0: never."""
    step_size: float = 0.2
    """How far samples follow the drift at each step."""
    log_every: int = 10
    """Steps between two lines of metrics.jsonl."""
    window: int = 0
    """Positions of the windows whose drift samples follow; 0: that of whole sequences, as published."""
    window_lengthscale: str = "1:0.5"
    """Lengthscale of the kernel of a window, the product over its positions of --kernel of the angle."""
    kernel: Literal["laplace", "gaussian", "matern", "spectral"] = "matern"
    """Kernel; matern uses --nu, laplace is the paper's."""
    lengthscale: str = "1.5:0.15"
    """Lengthscale of whole sequences in units of total distance: a number, several (0.3,1,3), annealed
    (3:0.3), or auto: the spread of the distances between the data, 0.5 on toy."""
    dataset: Literal["toy", "qm9"] = "toy"
    """Data set; toy is enumerated, qm9 is read from --data-dir."""
    data: Path | None = None
    """File of SMILES, one a line, to train on instead of --dataset."""
    skip_bad: bool = False
    """Leave out, and count, lines of --data that are no molecule or fit not the vocabulary or the length."""
    preset: Literal["auto", "mlp", "small", "base"] = "auto"
    """Network: mlp, for codes on a CPU, or a transformer, small (1.2 million parameters) or base (92 million,
    as published); auto: mlp with codes, small without."""
    geometry: Literal["spherical", "euclidean"] = "spherical"
    """Drift on the orthant of the sphere, or of whole sequences in R^35 at every position, with straight
    distances."""
    output: Literal["abs_normalize", "softmax"] = "abs_normalize"
    """Points of the sphere as |h| / ||h|| of the network's outputs h, or as sqrt(softmax(h))."""
    codes: int = 4_096
    """Learned codes, one of which a sequence is made from; 0: global noise instead, as published. A generator
    without position noise knows no more strings than codes."""
    balance: float = 0.7
    """Fraction of the training in which molecules weigh what makes each attract the same share of the
    samples; 0 for never. For whole strings on the sphere, with codes."""
    noise: Literal["binary", "gaussian"] = "binary"
    """Noise: fair signs, or normal numbers."""
    global_noise: int = 32
    """Numbers of noise of a sequence, which modulate every block, where there are no codes."""
    position_noise: int = -1
    """Numbers of noise at each position; 0 for none; -1 stands for none with codes and 4 without."""
    bf16: bool = False
    """Multiply the network's matrices in bfloat16, on a GPU; distances stay in float32."""

    def __post_init__(self) -> None:
        toy = self.dataset == "toy" and self.data is None
        self.steps = self.steps or (400 if toy else 2_400)
        super().__post_init__()
        check_range("--codes", self.codes, 0, MAX_CODEBOOK_SIZE)
        if self.preset == "auto":
            self.preset = "mlp" if self.codes else "small"
        if self.preset == "mlp" and not self.codes:
            raise ValueError("--preset mlp reads codes, and --codes 0 leaves none; take small or base")
        if not 0 <= self.balance < 1:
            raise ValueError(f"--balance must lie in [0, 1), got {self.balance}")
        check_range("--global-noise", self.global_noise, 1)
        if self.position_noise == -1:
            self.position_noise = 0 if self.codes else 4
        check_range("--position-noise", self.position_noise, 0)
        if self.geometry == "euclidean":
            self.window = 0
        if self.window or not self.codes or self.geometry == "euclidean":
            self.balance = 0.0
        if self.window:
            check_range("--window", self.window, 2)
        if self.geometry == "euclidean":
            self.output = "softmax"
        # Both are refused here even where only one is used.
        parse_lengthscales(self.lengthscale, auto=1.0)
        if "auto" in self.window_lengthscale:
            raise ValueError(f"--window-lengthscale {self.window_lengthscale}: auto is for --lengthscale")
        parse_lengthscales(self.window_lengthscale)


def load_data(config: Config) -> Molecules:
    """Data of a run; raises as `load` does."""
    return load(config.dataset, config.data, config.data_dir, skip_bad=config.skip_bad)


def make_generator(config: Config, data: Molecules) -> MoleculeGenerator:
    """Untrained generator of sequences as long as the data's, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return MoleculeGenerator(
            length=data.train.shape[1],
            **PRESETS[config.preset],
            global_channels=config.global_noise,
            position_channels=config.position_noise,
            latents="bernoulli" if config.noise == "binary" else "gaussian",
            codebook_size=config.codes,
            geometry=config.geometry,
            output=config.output,
            bf16=config.bf16,
        )


def make_field(config: Config, data: Molecules) -> Field:
    """Drift field of a run; raises ValueError for a kernel, lengthscale or step that is refused."""
    if config.kernel == "spectral":
        raise ValueError("--kernel spectral lives on one sphere; sequences are points on one a position")
    kernel = partial(make_kernel, config.kernel, nu=config.nu)
    field = _windows(config, kernel, data) if config.window else _whole(config, kernel, data)
    longest_step(field.manifold, config.max_step)
    return field


def _windows(config: Config, kernel: Callable[[float], RadialKernel], data: Molecules) -> Field:
    scales = checked_lengthscales(config.window_lengthscale, kernel)
    letters = CategoricalField(len(LETTERS), kernel, scales, config.direction, product=True)
    return window_field(letters, data.train.shape[1], config.window)


def _whole(config: Config, kernel: Callable[[float], RadialKernel], data: Molecules) -> Field:
    auto = _auto(config, kernel, data) if "auto" in config.lengthscale else None
    scales = checked_lengthscales(config.lengthscale, kernel, auto)
    if config.geometry == "euclidean":
        return KernelField(Power(Euclidean()), kernel, scales, config.direction)
    field = CategoricalField(len(LETTERS), kernel, scales, config.direction)
    if not config.balance:
        return field
    return BalancedField(field, data.train, until=config.balance, rate=_BALANCE_RATE)


def _auto(config: Config, kernel: Callable[[float], RadialKernel], data: Molecules) -> float:
    """Spread of the distances between training molecules, which is what weights depend on."""
    rows = torch.randperm(len(data.train), generator=generator_for(config.seed, _AUTO))[:_AUTO_REFERENCES]
    return onehot_lengthscale(kernel, data.train[rows], len(LETTERS), config.geometry)


def positives(config: Config, data: Molecules) -> Callable[[int, torch.Generator], Tensor]:
    """Sampler of training molecules, for `train`: tokens, one-hot points if the geometry is Euclidean, or
    the numbers of molecules if they are balanced."""
    if config.balance:
        return resample(torch.arange(len(data.train)))
    draw = resample(data.train)
    if config.geometry == "spherical":
        return draw
    return lambda n, generator: onehot(draw(n, generator))


def onehot(tokens: Int64[Tensor, "m length"]) -> Float[Tensor, "m length letters"]:
    """Vertices of the simplex, which are the same points in both geometries."""
    return one_hot(tokens, len(LETTERS)).float()


def report(run: Path, generator: MoleculeGenerator, data: Molecules) -> None:
    """Write the model, samples.smi and the figures of a run."""
    save_model(run / "model", generator)
    samples = draw(generator, SAMPLES, seed=0)
    save(run / "samples.smi", samples)
    strings, real, figures = to_smiles(samples), to_smiles(data.train), run / "figures"
    molecules_figure(strings, frozenset(real), figures / "molecules.png")
    properties_figure(real[:SAMPLES], strings, figures / "properties.png")
    training_figure(read_records(run), figures / "training.png")


def score(
    config: Config, generator: MoleculeGenerator, *, draws: int, on: Literal["test", "val"] = "test"
) -> Metrics:
    """Metrics of a generator against the "test" split, for reports, or "val", for choosing settings."""
    progress = partial(tqdm, desc="evaluate")
    return evaluate(generator.sample, load_data(config), on, draws, config.seed, progress)


def validation(config: Config, data: Molecules) -> Callable[[MoleculeGenerator], float]:
    """Score by which `train` keeps the best checkpoint: bigrams of samples against the validation split.

    They see repetition, length and grammar, whatever the share of valid molecules.
    """
    real = bigrams(to_smiles(data.val))

    def distance(generator: MoleculeGenerator) -> float:
        drawn = generator.sample(SAMPLES, generator_for(config.seed, _VALIDATING))
        return total_variation(bigrams(to_smiles(drawn)), real)

    return distance


def draw(generator: MoleculeGenerator, n: int, seed: int) -> Int64[Tensor, "n length"]:
    """Draw the tokens of n sequences with a seed."""
    return generator.sample(n, generator_for(seed, _SAMPLING))


def save(path: Path, samples: Int64[Tensor, "n length"]) -> None:
    """Write one string a line (.smi) as it was generated, molecule or not; an empty line if it is empty."""
    write_smi(path, to_smiles(samples))


def load_generator(run: Path) -> MoleculeGenerator:
    """Trained generator of a run, on a GPU where there is one.

    Raises:
        ValueError: the run has not finished, so that there is no model, or its files are damaged.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_model(MoleculeGenerator, run / "model").eval().to(device)
