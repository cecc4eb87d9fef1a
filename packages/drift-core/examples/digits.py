"""Digits of a class at a strength of guidance: scikit-learn's 1,797 scans of 8 x 8 pixels, in one evaluation.

python digits.py                            pixels, R^64
python digits.py --geometry sphere          directions of images, S^63
python digits.py --features                 also in the features of an encoder that is trained here
python digits.py --data FOLDER              grey images of one size, in a folder a class
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from drift_core import (
    AdaptiveField,
    ConditionalField,
    Domain,
    Euclidean,
    Field,
    KernelField,
    LabelledField,
    LocationField,
    Manifold,
    NormalizedField,
    PullbackField,
    Sphere,
    SumField,
    class_conditions,
    cli,
    mean_distance,
)
from drift_core.kernel.by_name import make_kernel
from drift_core.lengthscale import Lengthscales, auto_lengthscale, checked_lengthscales
from drift_core.runs import (
    DomainConfig,
    Measured,
    Metrics,
    Run,
    Split,
    evaluate_draws,
    frechet,
    written_figure,
)
from drift_core.runs.config import KernelConfig
from drift_core.seeds import generator_for
from drift_core.training import BatchConfig, OptimizerConfig, Sampler, Settings, resample, residual_mlp
from huggingface_hub import PyTorchModelHubMixin
from torch import Generator, Tensor, nn
from torch.nn import functional as F

STRENGTHS = (1.0, 1.5, 2.0, 3.0)
"""Strengths of guidance that are evaluated; training draws them between the first and the last."""


@dataclass(frozen=True, kw_only=True)
class DigitData(Settings):
    """The images, and where they live."""

    data: Path | None = None
    """Folder with a folder of grey images a class, all of one size; none: scikit-learn's digits."""
    geometry: Literal["euclidean", "sphere"] = "euclidean"
    """Images as vectors of pixels, or as their directions."""
    features: bool = False
    """Drift in features of an encoder, too."""


@dataclass(frozen=True, kw_only=True)
class DigitConfig(DomainConfig):
    """Train a one-step generator of digits, given class and strength of guidance."""

    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(steps=1_500, lr=2e-3, step_size=1.0, decay_fraction=0.5)
    )
    batch: BatchConfig = field(default_factory=lambda: BatchConfig(batch_size=500, num_positives=1437))
    kernel: KernelConfig = field(default_factory=lambda: KernelConfig(lengthscale="auto"))
    data: DigitData = field(default_factory=DigitData)


class Encoder(nn.Module):
    """Classifier of images [n, side^2]; its hidden layers are features."""

    def __init__(self, side: int, classes: int) -> None:
        super().__init__()
        self.maps = nn.Sequential(
            nn.Unflatten(1, (1, side, side)),
            nn.Conv2d(1, 32, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(2),
        )
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(256, 64), nn.SiLU())
        self.logits = nn.Linear(64, classes)

    def features(self, x: Tensor) -> Tensor:
        """Features of whole images, [n, 64]."""
        return self.hidden(self.maps(x))

    def layers(self, x: Tensor) -> Tensor:
        """Features of the four quarters and of whole images, [n, 5, 64]."""
        maps = self.maps(x)
        return torch.cat([maps.flatten(2).transpose(1, 2), self.hidden(maps)[:, None]], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the classes."""
        return self.logits(self.features(x))


class Digits(NamedTuple):
    """Images as points of a manifold, with labels: training and held out; and two classifiers of them."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    side: int
    encoder: Encoder
    """Whose features the field uses, if any."""
    judge: Encoder
    """Whom the metrics ask; another network, which training never sees."""


class DigitGenerator(nn.Module, PyTorchModelHubMixin):
    """Residual MLP from latents [n, 16] and conditions (label, strength) [n, 2] to images [n, pixels]."""

    def __init__(self, pixels: int, classes: int, sphere: bool, width: int = 256) -> None:
        super().__init__()
        self.classes, self.sphere = classes, sphere
        self.first = nn.Linear(16 + classes + 1, width)
        self.network = residual_mlp(width, 3, pixels)

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        """Images for latents and conditions."""
        label, strength = condition[:, 0].long(), condition[:, 1:]
        inputs = [z, 3 * F.one_hot(label, self.classes).to(z), strength.to(z).log()]
        x = self.network(self.first(torch.cat(inputs, dim=1)))
        return Sphere().projx(x) if self.sphere else x

    def latent(self, n: int, generator: Generator) -> Tensor:
        """Draw n latents."""
        return torch.randn(n, 16, generator=generator)


class Samples(NamedTuple):
    """Generated images, and the classes that were asked for."""

    images: Tensor
    labels: Tensor


def manifold_of(config: DigitConfig) -> Manifold:
    """Where the images live."""
    return Sphere() if config.data.geometry == "sphere" else Euclidean()


def read_folder(folder: Path) -> tuple[Tensor, Tensor]:
    """Images [n, pixels] of black 0 to white 1, and labels, the ranks of the folders' names."""
    from PIL import Image, UnidentifiedImageError  # comes with matplotlib

    files = sorted(path for path in folder.glob("*/*") if path.is_file())
    if not files:
        raise ValueError(f"{folder} holds no folders with images, one a class")
    names = sorted({path.parent.name for path in files})
    try:
        images = [np.asarray(Image.open(path).convert("L"), dtype=np.float32) / 255 for path in files]
    except UnidentifiedImageError as error:
        raise ValueError(f"{folder}: {error}") from None
    for path, image in zip(files, images, strict=True):
        if image.shape != images[0].shape or image.shape[0] != image.shape[1]:
            raise ValueError(f"{path} has {image.shape} pixels; all images must be squares of one size")
    labels = torch.tensor([names.index(path.parent.name) for path in files])
    return torch.from_numpy(np.stack(images)).flatten(1), labels


def trained_encoder(images: Tensor, labels: Tensor, side: int, seed: int) -> Encoder:
    """A classifier of the images, trained for a few seconds on noisy copies; its weights are frozen."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = Encoder(side, int(labels.max()) + 1)
        optimizer = torch.optim.AdamW(encoder.parameters(), lr=3e-3)
        noise = 0.1 * float(images.std())
        for _ in range(400):
            rows = torch.randint(len(images), (128,))
            noisy = images[rows] + noise * torch.randn(len(rows), images.shape[1])
            loss = F.cross_entropy(encoder(noisy), labels[rows])
            if float(loss.detach()) < 0.01:  # images that are easily told apart
                break
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return encoder.eval().requires_grad_(False)


class DigitDomain(Domain[DigitConfig, Digits, DigitGenerator]):
    """Images of classes; every fifth is held out."""

    name, config_type, generator_type = "digits", DigitConfig, DigitGenerator
    samples_file, num_samples = "samples.csv", 1_000

    def load(self, config: DigitConfig) -> Digits:
        """Read the images, and train the classifiers."""
        if config.data.data is not None:
            images, labels = read_folder(config.data.data)
        else:
            from sklearn.datasets import load_digits

            found = load_digits()
            images, labels = torch.tensor(found.data / 16).float(), torch.tensor(found.target)
        points, side = manifold_of(config).projx(images), round(images.shape[1] ** 0.5)
        order = torch.randperm(len(images), generator=Generator().manual_seed(0))
        test, train = order[: len(images) // 5], order[len(images) // 5 :]
        encoders = (trained_encoder(points[train], labels[train], side, seed) for seed in (0, 1))
        return Digits(points[train], labels[train], points[test], labels[test], side, *encoders)

    def generator(self, config: DigitConfig, data: Digits) -> DigitGenerator:
        """The MLP."""
        classes = int(data.labels.max()) + 1
        return DigitGenerator(data.images.shape[1], classes, config.data.geometry == "sphere")

    def field(self, config: DigitConfig, data: Digits) -> Field:
        """A problem per class and strength: in pixels and, with twice the weight, in features if asked."""
        manifold, kernel = (
            manifold_of(config),
            partial(make_kernel, config.kernel.kernel, nu=config.kernel.smoothness),
        )
        auto = auto_lengthscale(manifold, data.images)
        scales = checked_lengthscales(config.kernel.lengthscale or "auto", kernel, auto)
        pixels = ConditionalField(KernelField(manifold, kernel, scales, config.kernel.direction))
        if not config.data.features:
            return LabelledField(pixels, data.images, data.labels)
        plain = KernelField(Euclidean(), kernel, Lengthscales((0.5,)), config.kernel.direction)
        inner = NormalizedField(ConditionalField(AdaptiveField(plain, mean_distance)))
        encoder = data.encoder.to("cuda" if torch.cuda.is_available() else "cpu")  # where training runs
        features = PullbackField(encoder.layers, LocationField(inner), manifold)
        total = SumField([NormalizedField(pixels), NormalizedField(features)], [0.3, 0.6])
        return LabelledField(total, data.images, data.labels)

    def data_sampler(self, config: DigitConfig, data: Digits) -> Sampler:
        """Sampler of training images, by index."""
        return resample(torch.arange(len(data.images)))

    def condition_sampler(self, config: DigitConfig, data: Digits) -> Sampler:
        """Every class once a step, each at a random strength."""
        classes = int(data.labels.max()) + 1
        return class_conditions(classes, classes, largest=STRENGTHS[-1])

    def sample(
        self, run: Run[DigitConfig, Digits, DigitGenerator], n: int, seed: int, strength: float = 1.0
    ) -> Samples:
        """Draw n images, as many of each class."""
        labels = torch.arange(n) % run.generator.classes
        condition = torch.stack([labels.float(), torch.full((n,), strength)], dim=1)
        z = run.generator.latent(n, generator_for(seed))
        images = run.generator(z.to(run.device), condition.to(run.device)).detach().cpu()
        return Samples(images, labels)

    def write(self, path: Path, samples: Samples) -> None:
        """Write labels and pixels, an image a line."""
        rows = torch.cat([samples.labels[:, None], samples.images], dim=1)
        np.savetxt(path, rows, fmt="%.4g", delimiter=",")

    def metrics(self, run: Run[DigitConfig, Digits, DigitGenerator], draws: int, on: Split) -> Metrics:
        """Metrics of as many images as are held out, at each strength, beside those of training images."""
        data = run.data

        def measure(k: int) -> Measured:
            rows = torch.randperm(len(data.images), generator=generator_for(k))[: len(data.test_images)]
            floor = compare(data, Samples(data.images[rows], data.labels[rows]))
            # Training images are too easy for the judge: held-out ones say how well it knows the classes.
            floor |= judged(data, Samples(data.test_images, data.test_labels))
            values, floors = {}, {}
            for strength in STRENGTHS:
                found = compare(data, self.sample(run, len(data.test_images), k, strength))
                values |= {f"{name}_at_{strength:g}": value for name, value in found.items()}
                floors |= {f"{name}_at_{strength:g}": floor[name] for name in found}
            return values, floors

        return evaluate_draws(measure, draws)

    def figures(self, run: Run[DigitConfig, Digits, DigitGenerator], samples: Samples) -> None:
        """Draw every class at every strength, samples beside their nearest training images, and the curve."""
        folder, sample, side = run.folder / "figures", partial(self.sample, run), run.data.side
        classes = run.generator.classes
        by_class = torch.arange(2 * classes).reshape(2, classes).T.flatten()
        rows = [(f"strength {s:g}", sample(2 * classes, 0, s).images[by_class]) for s in STRENGTHS]
        draw_rows(folder / "samples.png", rows, side)
        some = samples.images[:20]
        nearest = manifold_of(run.config).cdist(some, run.data.images).argmin(1)
        pairs = [("samples", some), ("nearest training images", run.data.images[nearest])]
        draw_rows(folder / "nearest.png", pairs, side)
        found = [compare(run.data, sample(1_000, 1, s)) for s in STRENGTHS]
        draw_curve(
            folder / "guidance.png", found, compare(run.data, Samples(run.data.images, run.data.labels))
        )


def judged(data: Digits, samples: Samples) -> dict[str, float]:
    """Share of images that the judge sees as of the asked class, and its cross-entropy in nats."""
    logits = data.judge(samples.images)
    agreement = (logits.argmax(1) == samples.labels).double().mean()
    return {"agreement": float(agreement), "nats": float(F.cross_entropy(logits, samples.labels))}


def compare(data: Digits, samples: Samples) -> dict[str, float]:
    """Metrics of images: what the judge says, Frechet distance of its features, diversity within classes."""
    features = (data.judge.features(images).numpy() for images in (samples.images, data.test_images))
    classes = [samples.images[samples.labels == label] for label in samples.labels.unique()]
    diversity = torch.stack([torch.pdist(images).mean() for images in classes]).mean()
    return {**judged(data, samples), "frechet": frechet(*features), "diversity": float(diversity)}


def draw_rows(path: Path, rows: list[tuple[str, Tensor]], side: int) -> None:
    """Draw rows of images, each with a title."""
    with written_figure(path, 0.8 * len(rows), 12.0) as figure:
        for axes, (title, images) in zip(np.atleast_1d(figure.subplots(len(rows), 1)), rows, strict=True):
            whites = (F.pad(image, (1, 1, 1, 1)) for image in images.reshape(-1, side, side))
            axes.imshow(torch.cat(list(whites), dim=1), cmap="gray_r", vmin=0, vmax=float(rows[-1][1].max()))
            axes.set_title(title, fontsize=9, loc="left", pad=2)
            axes.set_axis_off()


def draw_curve(path: Path, found: list[dict[str, float]], train: dict[str, float]) -> None:
    """Draw what strength does to the judge's certainty, to diversity and to the Frechet distance."""
    titles = {
        "nats": "cross-entropy of the asked class (nats)",
        "diversity": "mean distance within a class",
        "frechet": "Fréchet distance to held-out images",
    }
    with written_figure(path, 3.0, 10.0) as figure:
        for axes, (name, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
            values = [part[name] for part in found]
            axes.plot(STRENGTHS, values, marker="o", label="samples")
            axes.axhline(train[name], color="0.5", linestyle="--", label="training images")
            axes.set_title(title, fontsize=10)
            axes.set_xlabel("strength")
            axes.set_ylim(0, 1.15 * max(*values, train[name]))
        figure.axes[0].legend(frameon=False)


if __name__ == "__main__":
    cli.train(DigitDomain())
