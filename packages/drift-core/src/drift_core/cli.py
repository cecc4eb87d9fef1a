"""Command lines: `train(MyDomain())` is an application, `sample` and `evaluate` handle its runs."""

import inspect
import io
import os
import re
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import tyro

from drift_core.runs.config import DomainConfig
from drift_core.runs.domain import Domain, Split
from drift_core.runs.folder import Place, read_config, read_settings, restore_config
from drift_core.runs.main import load_run, train_domain
from drift_core.runs.metrics import metrics_table, write_metrics
from drift_core.training.config import from_json
from drift_core.training.denormal import denormals_as_zero

T = TypeVar("T")

AnyDomain = Domain[Any, Any, Any]
Domains = Mapping[str, Callable[[], AnyDomain]]
"""Domains by the name that config.json holds; each is imported when it is needed."""


def train(domain: AnyDomain) -> None:
    """Train a domain as the command line says; its settings are the flags."""

    def main() -> None:
        config, place = parse_training(domain)
        folder, metrics = train_domain(domain, config, place)
        if metrics is not None:
            print(metrics_table(metrics))
            print(f"run folder: {folder}")

    run(main, domain.config_type().without_flags())


def sample(domains: Domains) -> None:
    """Draw samples of a finished run as the command line says."""

    def main() -> None:
        command = parse(SampleCommand)
        if command.n < 1:
            raise ValueError(f"`n` must be at least 1, got {command.n}")
        if command.out.exists():
            raise ValueError(f"`out` {command.out} exists; name a new file")
        domain = domain_of(command.run, domains)
        finished = load_run(domain, command.run, best=command.best)
        domain.write(command.out, domain.sample(finished, command.n, command.seed))
        print(f"{command.n:,} samples: {command.out}")

    run(main)


def evaluate(domains: Domains) -> None:
    """Score a finished run as the command line says."""

    def main() -> None:
        command = parse(EvaluateCommand)
        domain = domain_of(command.run, domains)
        finished = load_run(domain, command.run, best=command.best)
        metrics = domain.metrics(finished, command.draws, command.on)
        if command.on == "test" and not command.best:
            write_metrics(command.run, metrics)
        print(metrics_table(metrics))

    run(main)


@dataclass(kw_only=True)
class SampleCommand:
    """Draw samples from the generator of a finished run."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    out: Path
    """File to write; its format is the domain's."""
    n: int = 1_000
    """Number of samples."""
    seed: int = 0
    """Seed; the same seed draws the same samples."""
    best: bool = False
    """Take the weights that did best on validation data instead of the last ones."""


@dataclass(kw_only=True)
class EvaluateCommand:
    """Score the generator of a finished run, and rewrite its metrics.json."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    draws: int = 20
    """Generated draws over which metrics are averaged."""
    on: Split = "test"
    """Held-out data; val, for choosing settings, is printed and leaves metrics.json alone."""
    best: bool = False
    """Score the weights that did best on validation data; metrics.json is left alone."""


def domain_of(folder: Path, domains: Domains) -> AnyDomain:
    """Domain of a run.

    Raises:
        ValueError: the folder holds no run, or one of a domain that is not among them.
    """
    name = read_config(folder)["domain"]
    if name not in domains:
        raise ValueError(f"{folder} is a run of {name!r}; this version knows {', '.join(domains)}")
    return domains[name]()


def parse_training(domain: AnyDomain) -> tuple[DomainConfig, Place]:
    """Settings of a training run and where it goes, from the command line.

    Flags go above the file `--config`, which goes above the recipe. With `--resume` the settings that are
    not given are those of the run.

    Raises:
        ValueError: flags, a recipe or a file that cannot be used.
    """
    defaults, command = domain.config_type(), _training_command(domain)
    parsed = partial(parse, description=inspect.cleandoc(domain.config_type.__doc__ or ""))
    try:
        config, place, recipe, file = parsed(command(defaults))
    except ValueError as error:
        raise ValueError(_with_hint(str(error), defaults)) from None
    if place.resume and place.out is not None:
        if recipe or file:
            raise ValueError("`resume` takes the settings of the run; leave out `recipe` and `config`")
        stored = restore_config(domain.config_type, read_config(place.out))
        return parsed(command(stored))[:2]
    entries = read_settings(file) if file else {}
    if file:
        config = parsed(command(_in_file(file, defaults, entries)))[0]
    recipe = recipe or domain.default_recipe(config)
    started = defaults.replace(**domain.recipes.get(recipe or "", {}))
    return parsed(command(_in_file(file, started, entries)))[:2]


def _with_hint(message: str, settings: DomainConfig) -> str:
    """Message about a flag, with where it is set if it is a setting without a flag."""
    name = re.match(r"Unrecognized options: --([\w-]+)", message)
    if name is None or name.group(1).replace("-", "_") not in settings.flat():
        return message
    return f"{name.group(1).replace('-', '_')} has no flag; set it in a file, `config` FILE.json"


def _in_file(file: Path | None, default: DomainConfig, entries: Mapping[str, Any]) -> DomainConfig:
    try:
        return from_json(default, {k: v for k, v in entries.items() if k not in ("domain", "changes")})
    except ValueError as error:
        raise ValueError(f"`config` {file}: {error}") from None


Parsed = tuple[DomainConfig, Place, str | None, Path | None]


def _training_command(domain: AnyDomain) -> Callable[[DomainConfig], Callable[..., Parsed]]:
    """For given defaults the function whose arguments are the flags."""
    config_type: Any = domain.config_type
    recipes: Any = Literal[tuple(domain.recipes) or ("default",)]

    def command(defaults: DomainConfig) -> Callable[..., Parsed]:
        def start(
            settings: Annotated[config_type, tyro.conf.arg(name="")] = defaults,
            recipe: recipes | None = None,
            config: Path | None = None,
            out: Path | None = None,
            resume: tyro.conf.FlagCreatePairsOff[bool] = False,
            allow_changes: tyro.conf.FlagCreatePairsOff[bool] = False,
        ) -> Parsed:
            """Train.

            Args:
                settings: all settings.
                recipe: Settings that belong together; none: those that suit the data.
                config: JSON file of settings, in the form of a run's config.json.
                out: Folder of the run; none: runs/<domain>/<time>.
                resume: Continue the run in --out from its newest checkpoint.
                allow_changes: With --resume: continue with other settings than the run had.
            """
            return settings, Place(out, resume, allow_changes), recipe, config

        return start

    return command


def parse(command: Callable[..., T], description: str | None = None) -> T:
    """Arguments of a dataclass or a function from the command line.

    Raises:
        ValueError: the command line does not fit; the message is one line.
    """
    told = io.StringIO()
    try:
        with redirect_stderr(told):
            return tyro.cli(command, description=description, config=(tyro.conf.OmitArgPrefixes,))
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(_plain(told.getvalue())) from None


def _plain(box: str) -> str:
    """Text of a box of tyro's, without its frame and what it says about help."""
    lines = [line.strip("│ ") for line in box.splitlines() if line.startswith("│")]
    kept = []
    for line in lines:
        if line.startswith(("Argument helptext", "For full helptext")):
            break
        kept.append(line.strip("─"))
    return " ".join(" ".join(kept).split())


def run(main: Callable[[], None], without_flags: Collection[str] = ()) -> None:
    """Run a command; what the user can mend becomes one line on stderr and exit status 2.

    Messages name settings in backticks; they are printed as flags, but for those `without_flags`. Set
    DRIFT_DEBUG=1 to see the traceback instead.
    """
    try:
        with denormals_as_zero():  # as `train` does, but before torch starts its threads, which inherit it
            main()
    except (ValueError, OSError, FloatingPointError) as error:
        _refuse(error, as_flags(" ".join(str(error).split()), without_flags))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        _refuse(error, "out of memory; try a smaller --batch-size, --micro-batch-size or --n")
    except KeyboardInterrupt:
        print("stopped; --resume goes on with a training run", file=sys.stderr)
        sys.exit(130)


def _refuse(error: Exception, message: str) -> NoReturn:
    if os.environ.get("DRIFT_DEBUG"):
        raise error
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def as_flags(message: str, without_flags: Collection[str] = ()) -> str:
    """Message in which settings, named in backticks, are flags where they have one."""

    def flag(found: re.Match[str]) -> str:
        name = found.group(1)
        return name if name in without_flags else "--" + name.replace("_", "-")

    return re.sub(r"`(\w+)`", flag, message)
