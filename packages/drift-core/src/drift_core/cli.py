"""Command-line applications: `train(MyDomain())` trains; `sample`, `evaluate`, `report` use runs."""

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

from drift_core.runs.card import write_card
from drift_core.runs.config import DomainConfig
from drift_core.runs.domain import Split
from drift_core.runs.folder import Place, read_config, read_settings, restore_config
from drift_core.runs.installed import AnyDomain, Domains
from drift_core.runs.main import load_run, train_domain
from drift_core.runs.metrics import metrics_table, read_metrics, write_metrics
from drift_core.runs.report_page import REPORT, write_report
from drift_core.training.config import from_json
from drift_core.training.denormal import denormals_as_zero

T = TypeVar("T")

_SAMPLING = {
    "RUN --out FILE": "1,000 samples",
    "RUN --n 100000 --seed 1 --out FILE": "others, and more of them",
    "RUN --best --out FILE": "by the weights that did best on validation data",
}
_EVALUATING = {
    "RUN --draws 100": "averages of 100 draws",
    "RUN --on val": "on validation data, to choose settings by",
    "RUN --on val --best": "of the weights that did best on them",
}


def train(domain: AnyDomain) -> None:
    """Train a domain with the settings given as command-line flags."""

    def main() -> None:
        config, place = parse_training(domain)
        folder, metrics = train_domain(domain, config, place)
        if metrics is not None:
            print(metrics_table(metrics))
            print(f"run folder: {folder}; open {folder / REPORT}")
            if left := _untried(domain.examples):
                print("try next:", *example_lines(left), sep="\n")

    run(main, domain.config_type().without_flags())


def sample(domains: Domains) -> None:
    """Sample from a finished run named on the command line (`SampleCommand`)."""

    def main() -> None:
        command = parse(SampleCommand, with_examples(SampleCommand.__doc__, _SAMPLING))
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
    """Evaluate a finished run named on the command line (`EvaluateCommand`)."""

    def main() -> None:
        command = parse(EvaluateCommand, with_examples(EvaluateCommand.__doc__, _EVALUATING))
        domain = domain_of(command.run, domains)
        finished = load_run(domain, command.run, best=command.best)
        draws = finished.config.run.eval_draws if command.draws is None else command.draws
        metrics = domain.metrics(finished, draws, command.on)
        if command.on == "test" and not command.best:
            write_metrics(command.run, metrics)
            write_report(domain, command.run, finished.config, metrics)
            write_card(domain, command.run, finished.config, metrics)
        print(metrics_table(metrics))

    run(main)


def report(domains: Domains) -> None:
    """Rewrite the page of a finished run named on the command line (`ReportCommand`)."""

    def main() -> None:
        folder = parse(ReportCommand).run
        domain = domain_of(folder, domains)
        config = restore_config(domain.config_type, read_config(folder))
        metrics = read_metrics(folder)
        write_report(domain, folder, config, metrics)
        write_card(domain, folder, config, metrics)
        print(folder / REPORT)

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
    """Use the weights with the best validation score instead of the final ones."""


@dataclass(kw_only=True)
class EvaluateCommand:
    """Score the generator of a finished run, and rewrite its metrics.json and report.html."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    draws: int | None = None
    """Draws over which metrics are averaged; none: as many as after training."""
    on: Split = "test"
    """Held-out data; the metrics of val, for choosing settings, are printed but not saved."""
    best: bool = False
    """Score the weights with the best validation score; their metrics are printed but not saved."""


@dataclass(kw_only=True)
class ReportCommand:
    """Rewrite the report.html of a finished run from its files, and print its path."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""


def domain_of(folder: Path, domains: Domains) -> AnyDomain:
    """Domain of a run.

    Raises:
        ValueError: the folder holds no run, or a run of an unknown domain.
    """
    name = read_config(folder)["domain"]
    if name not in domains:
        raise ValueError(f"{folder} is a run of {name!r}; the installed domains are {', '.join(domains)}")
    return domains[name]()


def parse_training(domain: AnyDomain) -> tuple[DomainConfig, Place]:
    """Parse the settings of a training run, and its folder, from the command line.

    Flags override the file `--config`, which overrides the recipe. With `--resume` the defaults are the
    settings of the run.

    Raises:
        ValueError: invalid flags, or an invalid file.
    """
    defaults, command = domain.config_type(), partial(_training_command, domain)
    parsed = partial(parse, description=with_examples(domain.config_type.__doc__, domain.examples))
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
    """Error message, which for a setting without a flag says where to set it."""
    found = re.match(r"Unrecognized options: --([\w-]+)", message)
    name = found.group(1).replace("-", "_") if found else ""
    return f"{name} has no flag; set it in a file, `config` FILE.json" if name in settings.flat() else message


def _in_file(file: Path | None, default: DomainConfig, entries: Mapping[str, Any]) -> DomainConfig:
    try:
        return from_json(default, {k: v for k, v in entries.items() if k not in ("domain", "changes")})
    except ValueError as error:
        raise ValueError(f"`config` {file}: {error}") from None


Parsed = tuple[DomainConfig, Place, str | None, Path | None]


def _training_command(domain: AnyDomain, defaults: DomainConfig) -> Callable[..., Parsed]:
    """Function whose arguments are the flags, with default settings."""
    config_type: Any = domain.config_type
    recipes: Any = Literal[tuple(domain.recipes) or ("default",)]

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
            recipe: Named group of settings; none: the one for the data.
            config: JSON file of settings, in the format of a run's config.json.
            out: Folder of the run; none: runs/<domain>/<time>.
            resume: Continue the run in --out from its newest checkpoint.
            allow_changes: With --resume: accept settings that differ from those of the run.
        """
        return settings, Place(out, resume, allow_changes), recipe, config

    return start


def with_examples(description: str | None, examples: Mapping[str, str]) -> str:
    """Description of a command, and its examples: flags with what they do."""
    text = inspect.cleandoc(description or "")
    return "\n".join([f"{text}\n\nExamples:", *example_lines(examples)]) if examples else text


def example_lines(examples: Mapping[str, str]) -> list[str]:
    """One line for each example: this program with the flags, and what they do."""
    width = max(map(len, examples))
    return [f"  {sys.argv[0]} {flags:<{width}}   {effect}" for flags, effect in examples.items()]


def _untried(examples: Mapping[str, str]) -> dict[str, str]:
    """Examples whose first flag was not given."""
    return {flags: effect for flags, effect in examples.items() if flags.split()[0] not in sys.argv}


def parse(command: Callable[..., T], description: str | None = None) -> T:
    """Call a dataclass or a function with arguments from the command line.

    Raises:
        ValueError: invalid arguments; the message is one line.
    """
    printed = io.StringIO()
    try:
        with redirect_stderr(printed):
            return tyro.cli(command, description=description, config=(tyro.conf.OmitArgPrefixes,))
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(_plain(printed.getvalue())) from None


def _plain(box: str) -> str:
    """Text of an error box of tyro, without its title, its frame (none in ASCII) and its hint about help."""
    kept: list[str] = []
    for line in (line.strip("│╰╯ ") for line in box.splitlines()[1:]):
        if line.startswith(("Argument helptext", "For full helptext")):
            break
        kept += [line] if line.strip("─-") else []
    return " ".join(" ".join(kept).split())


def run(
    main: Callable[[], None],
    without_flags: Collection[str] = (),
    stopped: str = "stopped; --resume goes on with a training run",
) -> None:
    """Run a command; an error that the user can fix becomes one line on stderr and exit status 2.

    Settings that messages name in backticks are printed as flags, except those `without_flags`. `stopped` is
    printed if the command is interrupted. Set DRIFT_DEBUG=1 to see the traceback instead.
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
        print(stopped, file=sys.stderr)
        sys.exit(130)


def _refuse(error: Exception, message: str) -> NoReturn:
    if os.environ.get("DRIFT_DEBUG"):
        raise error
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def as_flags(message: str, without_flags: Collection[str] = ()) -> str:
    """Message with the settings named in backticks written as flags, except those `without_flags`."""

    def flag(found: re.Match[str]) -> str:
        name = found.group(1)
        return name if name in without_flags else "--" + name.replace("_", "-")

    return re.sub(r"`(\w+)`", flag, message)
