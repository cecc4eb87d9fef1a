"""The command that trains a domain: flags above a file of settings, above a recipe."""

import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from drift_core.cli.arguments import example_lines, parse, with_examples
from drift_core.cli.errors import run
from drift_core.runs.config import DomainConfig
from drift_core.runs.folder import Place, read_config, read_settings, restore_config
from drift_core.runs.installed import AnyDomain
from drift_core.runs.main import train_domain
from drift_core.runs.metrics import metrics_table
from drift_core.runs.report_page import REPORT
from drift_core.training.config import from_json


def train(domain: AnyDomain) -> None:
    """Train a domain with the settings given as command-line flags."""

    def main() -> None:
        config, place = parse_training(domain)
        folder, metrics = train_domain(domain, config, place)
        if metrics is not None:
            print(metrics_table(metrics))
            print(f"run folder: {folder}; open {folder / REPORT}")
            if longer := _longer(domain, config):
                print(longer)
            if left := _untried(domain.examples):
                print("try next:", *example_lines(left), sep="\n")

    run(main, domain.config_type().without_flags())


def _longer(domain: AnyDomain, config: DomainConfig) -> str | None:
    """Line that names the recipe of better training, after as many steps as the default one has."""
    name = domain.default_recipe(config) or ""
    better = domain.longer.get(name)
    if better is None:
        return None
    recipes = (domain.config_type().replace(**domain.recipes[recipe]) for recipe in (name, better))
    usual, more = (recipe.optimizer.steps for recipe in recipes)
    if config.optimizer.steps != usual:
        return None
    return f"these were the {usual:,} steps of --recipe {name}; better are the {more:,} of --recipe {better}"


def _untried(examples: Mapping[str, str]) -> dict[str, str]:
    """Examples whose first flag was not given."""
    return {flags: effect for flags, effect in examples.items() if flags.split()[0] not in sys.argv}


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
