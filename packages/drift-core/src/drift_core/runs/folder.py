"""Run folders: created once, written atomically, never overwritten."""

import dataclasses
import hashlib
import io
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any, TypeVar, get_type_hints

from accelerate import Accelerator
from huggingface_hub import ModelHubMixin
from safetensors import SafetensorError

from drift_core.files import PART, write_json
from drift_core.training.config import RunConfig, setting_from_json
from drift_core.training.parallel import on_main, warn

CONFIG = "config.json"
METRICS = "metrics.json"

C = TypeVar("C", bound=RunConfig)


# Settings that say where a run is and how to report it, not what it is.
_ELSEWHERE = (
    "out", "data_dir", "resume", "allow_changes", "eval_draws", "tracker", "log_every", "save_every", "keep"
)  # fmt: skip


def open_run(config: RunConfig, domain: str, accelerator: Accelerator) -> Path:
    """Folder of a new run, or with `config.resume` of the run to continue, the same on every process.

    Raises:
        ValueError: a new run would go into a folder that is not empty, or the run to continue is of
            another domain, or has other settings without `config.allow_changes`.
        OSError: the folder cannot be written.
    """
    out = config.out or Path("runs") / domain / time.strftime("%Y%m%d-%H%M%S")
    out = on_main(accelerator, partial(_open_run, out, config, domain, partial(warn, accelerator)))
    accelerator.project_configuration.logging_dir = str(out)
    accelerator.init_trackers(domain, _flat(_settings(config, domain)))
    return out


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as trackers take them: numbers and text."""
    return {key: value if isinstance(value, int | float) else str(value) for key, value in settings.items()}


def _open_run(out: Path, config: RunConfig, domain: str, tell: Callable[[str], None]) -> Path:
    if not config.resume:
        _create_run(out)
        write_json(out / CONFIG, _settings(config, domain))
        return out
    changes = _check_resumes(out, config, domain)
    _sweep(out)
    if changes:
        tell(f"{out} goes on with other settings: {', '.join(changes)}")
        history = read_config(out).get("changes")
        earlier = history if isinstance(history, list) else []
        write_json(out / CONFIG, {**_settings(config, domain), "changes": [*earlier, *changes]})
    return out


def _create_run(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a new folder")
    if out.is_dir():
        _sweep(out)
        if any(out.iterdir()):
            held = "already holds a run" if (out / CONFIG).exists() else "is not empty"
            raise ValueError(f"--out {out} {held}; name a new folder, or continue a run with --resume")
    out.mkdir(parents=True, exist_ok=True)


def _sweep(out: Path) -> None:
    """Remove the unfinished files that a killed run left."""
    for part in [*out.glob(f"{PART}*"), *out.glob(f"*/{PART}*")]:
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink()


def _settings(config: RunConfig, domain: str) -> dict[str, Any]:
    """Settings as JSON holds them, paths and infinities (--nu inf) as text, and as a new run has them."""
    plain = dataclasses.asdict(dataclasses.replace(config, resume=False, allow_changes=False))
    return {
        key: str(value) if isinstance(value, Path) or value == math.inf else value
        for key, value in {"domain": domain, **plain}.items()
    }


def _check_resumes(out: Path, config: RunConfig, domain: str) -> list[str]:
    """Refuse to continue a run with other settings, or list them where that is allowed."""
    stored, given = read_config(out), _settings(config, domain)
    keys = [key for key in given if key not in _ELSEWHERE and stored.get(key, given[key]) != given[key]]
    changes = [f"{key} was {stored[key]!r}, is {given[key]!r}" for key in keys]
    if "domain" in keys or (changes and not config.allow_changes):
        hint = "" if "domain" in keys else "; --allow-changes goes on with the new ones"
        raise ValueError(f"--resume: the settings of {out} differ: {', '.join(changes)}{hint}")
    return changes


def read_config(run: Path) -> dict[str, Any]:
    """Configuration of a finished or stopped run, as written by `open_run`.

    Raises:
        ValueError: the folder holds no run, or its config.json is damaged.
    """
    path = run / CONFIG
    if not path.is_file():
        raise ValueError(f"{run} holds no run: there is no {CONFIG} in it")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(config, dict) or not isinstance(config.get("domain"), str):
        raise ValueError(f"{path} is damaged: it names no domain")
    return config


def restore_config(cls: type[C], stored: Mapping[str, Any]) -> C:
    """Configuration dataclass from what `read_config` returned; unknown entries are left out.

    Raises:
        ValueError: an entry is not of the type of its setting, or not among its values.
    """
    kinds = get_type_hints(cls)
    known: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.name in stored:
            try:
                known[field.name] = setting_from_json(stored[field.name], kinds[field.name])
            except ValueError as error:
                raise ValueError(f"{CONFIG} of the run is damaged: {field.name}: {error}") from None
    return cls(**known)
