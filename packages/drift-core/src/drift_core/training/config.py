"""Settings of training, in groups. Command lines and files are derived from these dataclasses."""

import dataclasses
import math
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

T = TypeVar("T")
S = TypeVar("S", bound="Settings")

FromFile = Annotated[T, tyro.conf.Suppress, tyro.conf.Fixed]
"""Type of a rarely changed setting, which is set in a file or in code and has no flag."""


@dataclass(frozen=True)
class Check:
    """Annotation of a setting: a function of its name and value, unless none, that `Settings.check` calls."""

    function: Callable[[str, Any], None]


def check_range(name: str, value: int, least: int, most: int = 2**31 - 1) -> None:
    """Raise ValueError, naming the setting, for a number outside least..most."""
    if value < least:
        raise ValueError(f"`{name}` must be at least {least}, got {value}")
    if value > most:
        raise ValueError(f"`{name}` must be at most {most}, got {value}")


def check_positive(name: str, value: float) -> None:
    """Raise ValueError, naming the setting, for a number that is not positive and finite."""
    if not 0 < value < math.inf:
        raise ValueError(f"`{name}` must be positive and finite, got {value}")


def check_fraction(name: str, value: float | None) -> None:
    """Raise ValueError, naming the setting, for a number outside [0, 1)."""
    if value is not None and not 0 <= value < 1:
        raise ValueError(f"`{name}` must lie in [0, 1), got {value}")


def check_weight(name: str, value: float) -> None:
    """Raise ValueError, naming the setting, for a number that is negative or not finite."""
    if not 0 <= value < math.inf:
        raise ValueError(f"`{name}` must be finite and not negative, got {value}")


def at_least(least: int, most: int = 2**31 - 1) -> Check:
    """Annotation of a setting: a number in least..most."""
    return Check(partial(check_range, least=least, most=most))


Positive = Annotated[float, Check(check_positive)]
Weight = Annotated[float, Check(check_weight)]
Fraction = Annotated[float, Check(check_fraction)]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A dataclass of settings or of groups of settings. Names are unique over all groups.

    Raises ValueError for a value that is not among the choices of its setting.
    """

    def __post_init__(self) -> None:
        kinds = get_type_hints(type(self))
        for name, value in self._items():
            literals = [part for part in _parts(kinds[name]) if get_origin(part) is Literal]
            choices = [choice for literal in literals for choice in get_args(literal)]
            if choices and value is not None and value not in choices:
                raise ValueError(f"`{name}` must be one of {', '.join(map(str, choices))}; got {value}")

    @classmethod
    def of(cls: type[S], **settings: Any) -> S:
        """Defaults with some settings changed, in any group. Raises as `replace`."""
        return cls().replace(**settings)

    def replace(self: S, **settings: Any) -> S:
        """Copy with some settings changed, in any group.

        Raises:
            ValueError: there is no setting of that name.
        """
        left, changed = dict(settings), {}
        for name, value in self._items():
            if isinstance(value, Settings):
                inner = {key: left.pop(key) for key in value.flat() if key in left}
                changed[name] = value.replace(**inner) if inner else value
            elif name in left:
                changed[name] = left.pop(name)
        if left:
            raise ValueError(f"there is no setting {', '.join(left)}")
        return dataclasses.replace(self, **changed)

    def flat(self) -> dict[str, Any]:
        """All settings by name, without their groups."""
        found: dict[str, Any] = {}
        for name, value in self._items():
            found |= value.flat() if isinstance(value, Settings) else {name: value}
        return found

    def without_flags(self) -> set[str]:
        """Names of the settings that are `FromFile`."""
        hints = get_type_hints(type(self), include_extras=True)
        groups = [value.without_flags() for _, value in self._items() if isinstance(value, Settings)]
        own = {name for name, hint in hints.items() if tyro.conf.Suppress in _parts(hint)}
        return own.union(*groups)

    def check(self) -> None:
        """Raise ValueError, with its name in backticks, for a setting that is out of range."""
        kinds = get_type_hints(type(self), include_extras=True)
        for name, value in self._items():
            if isinstance(value, Settings):
                value.check()
            elif value is not None:
                for part in _parts(kinds[name]):
                    if isinstance(part, Check):
                        part.function(name, value)

    def _items(self) -> Iterator[tuple[str, Any]]:
        return ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Settings):
    """Optimiser, learning rate, and step size along the drift."""

    steps: Annotated[int, at_least(1)] = 4000
    """Training steps."""
    lr: Positive = 1e-3
    """Learning rate."""
    step_size: Positive = 0.05
    """Step of a sample, as a multiple of its drift."""
    optimizer: Literal["adamw", "adam", "muon"] = "adamw"
    """AdamW; Adam, where weight decay is an L2 penalty; or Muon for hidden matrices, AdamW for the rest."""
    max_step: FromFile[Positive | None] = None
    """Longest step of a sample; none: just below the injectivity radius."""
    warmup_steps: FromFile[Annotated[int, at_least(0)]] = 100
    """Steps of linear warm-up of the learning rate."""
    decay_fraction: FromFile[Fraction] = 0.0
    """Fraction of the steps, at the end, over which the learning rate decays to zero; 0: never."""
    decay_power: FromFile[Positive] = 1.0
    """Shape of the decay: the learning rate is proportional to this power of the steps left; 1 is linear."""
    beta1: FromFile[Fraction] = 0.9
    """Decay per step of the mean of the gradient."""
    beta2: FromFile[Fraction] = 0.999
    """Decay per step of the mean of the squared gradient."""
    weight_decay: FromFile[Weight | None] = None
    """Weight decay; none: 0.01, and no decay with adam."""
    clip_norm: FromFile[Positive] = 1.0
    """Largest norm of the gradient of the weights."""
    ema_decay: FromFile[Fraction | None] = None
    """Decay per step of the moving average of the weights, which is evaluated and saved; none: 1 - 9 / steps,
    an average over a ninth of the training."""

    @property
    def averaging(self) -> float:
        """Decay per step of the moving average of the weights."""
        return max(0.0, 1 - 9 / self.steps) if self.ema_decay is None else self.ema_decay

    def lr_at(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, constant, then decay."""
        left = min(1.0, (self.steps - step) / max(1.0, self.decay_fraction * self.steps))
        return self.lr * min((step + 1) / max(1, self.warmup_steps), 1.0, left**self.decay_power)

    def parameters_at(self, step: int) -> dict[str, Any]:
        """Settings of torch's optimiser at a step."""
        default = 0.0 if self.optimizer == "adam" else 0.01
        return {
            "lr": self.lr_at(step),
            "betas": (self.beta1, self.beta2),
            "weight_decay": default if self.weight_decay is None else self.weight_decay,
            "decoupled_weight_decay": self.optimizer != "adam",
        }


@dataclass(frozen=True, kw_only=True)
class BatchConfig(Settings):
    """Numbers of samples and data points per step, over all processes."""

    batch_size: Annotated[int, at_least(2)] = 1024
    """Samples per step."""
    micro_batch_size: Annotated[int, at_least(1)] | None = None
    """Rows that go through the network at once: less memory, one more forward pass; none: all."""
    num_positives: FromFile[Annotated[int, at_least(1)] | None] = None
    """Data points that attract at each step; none: the batch size."""
    num_negatives: FromFile[Annotated[int, at_least(0)]] = 0
    """Additional samples per step, which repel but are not trained."""

    @property
    def positives(self) -> int:
        """Data points that attract at each step."""
        return self.batch_size if self.num_positives is None else self.num_positives


@dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """Seed, logging and checkpoints of a run."""

    seed: Annotated[int, at_least(0)] = 0
    """Seed of the initial weights, the latents and the data order."""
    save_every: Annotated[int, at_least(1)] = 1000
    """Steps between two checkpoints."""
    log_every: FromFile[Annotated[int, at_least(1)]] = 50
    """Steps between two lines of metrics.jsonl."""
    keep: FromFile[Annotated[int, at_least(1)]] = 2
    """Number of checkpoints that are kept, the newest."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """Settings of `train`, for any data: `TrainConfig.of(steps=2_000, batch_size=256)`."""

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    run: RunConfig = field(default_factory=RunConfig)


def to_json(settings: Settings) -> dict[str, Any]:
    """Settings as a JSON object, nested by group; paths and infinities become text."""
    return {name: _plain(value) for name, value in settings._items()}


def _parts(kind: Any) -> Iterator[Any]:
    """An annotation and its arguments, at any depth."""
    yield kind
    for part in get_args(kind):
        yield from _parts(part)


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return to_json(value)
    return str(value) if isinstance(value, Path) or value == math.inf else value


def from_json(default: S, stored: Mapping[str, Any]) -> S:
    """Settings updated from a JSON object, nested by group.

    Raises:
        ValueError: an unknown setting, or a value of the wrong type.
    """
    types_of, values = get_type_hints(type(default)), {}
    for name, value in stored.items():
        current = getattr(default, name, None) if name in types_of else None
        if isinstance(current, Settings) and isinstance(value, Mapping):
            values[name] = from_json(current, value)
        elif name in types_of and not isinstance(current, Settings):
            try:
                values[name] = setting_from_json(value, types_of[name])
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        else:
            what = "group of settings" if isinstance(value, Mapping) else "setting"
            raise ValueError(f"there is no {what} {name!r}")
    return dataclasses.replace(default, **values)


def setting_from_json(value: Any, kind: Any) -> Any:
    """Convert a JSON value to a setting of the annotated type `kind`; paths and infinities are text in JSON.

    Raises:
        ValueError: the value is not of that type.
    """
    if get_origin(kind) in (Union, types.UnionType):
        return _first_that_fits(value, get_args(kind))
    if get_origin(kind) is Literal and value in get_args(kind):
        return value
    if kind is type(None) and value is None:
        return None
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and value in ("inf", "-inf"):
        return float(value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind in (int, bool, str) and type(value) is kind:
        return value
    if get_origin(kind) is Literal:
        raise ValueError(f"{value!r:.80} is none of {', '.join(map(str, get_args(kind)))}")
    raise ValueError(f"{value!r:.80} is not {getattr(kind, '__name__', kind)}")


def _first_that_fits(value: Any, kinds: Sequence[Any]) -> Any:
    for kind in kinds:
        try:
            return setting_from_json(value, kind)
        except ValueError:
            continue
    raise ValueError(f"{value!r:.80} is none of {', '.join(getattr(k, '__name__', str(k)) for k in kinds)}")
