"""Run folders: created once, written atomically, never overwritten."""

import dataclasses
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from huggingface_hub import ModelHubMixin

from drift_core.config import RunConfig

CONFIG = "config.json"
METRICS = "metrics.json"
RECORDS = "metrics.jsonl"

C = TypeVar("C", bound=RunConfig)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Path to write to in place of `path`, which it replaces at the end, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.chmod(0o666 & ~_umask())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically; NaN and infinities become null, as JSON has none."""
    with atomic_path(path) as part:
        part.write_text(json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def save_model(folder: Path, module: ModelHubMixin) -> None:
    """Write the weights (safetensors) and arguments of a module, replacing the folder as a whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as part:
        module.save_pretrained(Path(part) / folder.name)
        shutil.rmtree(folder, ignore_errors=True)
        (Path(part) / folder.name).rename(folder)


# Settings that say where a run is and how to report it, not what it is.
_ELSEWHERE = ("out", "data_dir", "resume", "eval_draws", "tracker", "log_every", "save_every")


def open_run(config: RunConfig, domain: str, accelerator: Accelerator) -> Path:
    """Folder of a new run, or with `config.resume` of the run to continue, the same on every process.

    Raises:
        ValueError: a new run would go into a folder that is not empty, or the run to continue is of
            another domain or has other settings.
    """
    out = config.out or Path("runs") / domain / time.strftime("%Y%m%d-%H%M%S")
    if accelerator.is_main_process:
        if config.resume:
            _check_resumes(out, config, domain)
        else:
            _create_run(out)
            write_json(out / CONFIG, _settings(config, domain))
    chosen: list[Path] = broadcast_object_list([out])
    return chosen[0]


def _create_run(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a new folder")
    if out.is_dir() and any(out.iterdir()):
        held = "already holds a run" if (out / CONFIG).exists() else "is not empty"
        raise ValueError(f"--out {out} {held}; name a new folder, or continue a run with --resume")
    out.mkdir(parents=True, exist_ok=True)


def _settings(config: RunConfig, domain: str) -> dict[str, Any]:
    """Settings as JSON holds them: paths and infinities (--nu inf) as text."""
    settings = {"domain": domain, **dataclasses.asdict(config)}
    return {
        key: str(value) if isinstance(value, Path) or value == math.inf else value
        for key, value in settings.items()
    }


def _check_resumes(out: Path, config: RunConfig, domain: str) -> None:
    stored, given = read_config(out), _settings(config, domain)
    changed = [key for key in given if key not in _ELSEWHERE and stored.get(key) != given[key]]
    if changed:
        what = ", ".join(f"{key} was {stored.get(key)!r}, is {given[key]!r}" for key in changed)
        raise ValueError(f"--resume: the settings of {out} differ: {what}")


def read_config(run: Path) -> dict[str, Any]:
    """Configuration of a finished or stopped run, as written by `open_run`.

    Raises:
        ValueError: the folder holds no run, or its config.json is damaged.
    """
    path = run / CONFIG
    if not path.is_file():
        raise ValueError(f"{run} holds no run: there is no {CONFIG} in it")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(config, dict) or "domain" not in config:
        raise ValueError(f"{path} is damaged: it names no domain")
    return config


def restore_config(cls: type[C], stored: Mapping[str, Any]) -> C:
    """Configuration dataclass from what `read_config` returned; unknown entries are left out."""
    known: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.name in stored:
            value = stored[field.name]
            as_type = Path if "Path" in str(field.type) else float if field.type is float else None
            known[field.name] = as_type(value) if isinstance(value, str) and as_type else value
    return cls(**known)


def read_records(run: Path) -> list[dict[str, Any]]:
    """Logged steps of a run, oldest first; a last line cut short by a crash is left out."""
    path = run / RECORDS
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records
