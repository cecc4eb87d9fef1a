"""The model card of a run: README.md of its folder model/, which can be published as it is."""

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from safetensors import safe_open

from drift_core.files import atomic_path
from drift_core.runs.config import DomainConfig
from drift_core.runs.domain import Domain
from drift_core.runs.environment import read_environment
from drift_core.runs.metrics import Metric, with_spread
from drift_core.training.config import to_json

CARD, PICTURE = "README.md", "samples.png"


def write_card(
    domain: Domain[Any, Any, Any], folder: Path, config: DomainConfig, metrics: Mapping[str, Metric]
) -> None:
    """Write the model card of a run, and a picture of its samples where it has one, into its folder model/.

    It has the form of the Hugging Face hub: what the model is, how to load it, metrics beside their floors,
    data, intended use and limits, licence, how to train it and how to cite it.

    Raises:
        ValueError: the run's environment.json is damaged.
        OSError: a file cannot be read or written.
    """
    model, picture = folder / "model", folder / "figures" / PICTURE
    if picture.exists():
        with atomic_path(model / PICTURE) as part:
            shutil.copyfile(picture, part)
    kind, environment = domain.generator_type, read_environment(folder)
    on_gpu = environment.get("device", "cpu") != "cpu"
    templates = Environment(
        loader=PackageLoader("drift_core.runs"), undefined=StrictUndefined, keep_trailing_newline=True
    )
    text = templates.get_template("card.md").render(
        notes=domain.notes,
        package=kind.__module__.partition(".")[0],
        kind=kind.__name__,
        parameters=_parameters(model / "model.safetensors"),
        picture=picture.exists(),
        metrics=metrics,
        spread=with_spread,
        steps=config.optimizer.steps,
        seed=config.run.seed,
        settings=json.dumps(to_json(_elsewhere(config)), indent=2),
        program=environment.get("program", "TRAINING_PROGRAM"),
        processor=environment.get("device" if on_gpu else "processor", "an unknown processor"),
    )
    with atomic_path(model / CARD) as part:
        part.write_text(text, encoding="utf-8")


def _parameters(path: Path) -> int:
    """Numbers in a file of weights."""
    with safe_open(path, "pt") as weights:
        return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118


def _elsewhere(config: DomainConfig) -> DomainConfig:
    """The settings without the folder of this machine's data."""
    return config.replace(data_dir=None) if "data_dir" in config.flat() else config
