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

from drift_core.config import RunConfig, setting_from_json
from drift_core.parallel import on_main, warn

CONFIG = "config.json"
METRICS = "metrics.json"
RECORDS = "metrics.jsonl"

C = TypeVar("C", bound=RunConfig)
H = TypeVar("H", bound=ModelHubMixin)

_PART = ".part."
"""How the names of unfinished files begin."""
_SUMS = "SHA256SUMS"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Context whose OSErrors name `path` where they name no file, as on a full disk, or an unfinished one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or (error.filename and not Path(error.filename).name.startswith(_PART)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Path to write to in place of `path`, which it replaces at the end, whole or not at all.

    Raises:
        OSError: the file cannot be written; what was there before is left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{_PART}{path.stem}.", suffix=path.suffix)
        os.close(handle)
        part = Path(name)
        try:
            yield part
            _sync(part)
            part.chmod(0o666 & ~_umask())
            part.replace(path)
            _sync(path.parent)
        finally:
            part.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file, or the list of files of a folder, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically; NaN and infinities become null, as JSON has none."""
    with atomic_path(path) as part:
        part.write_text(json.dumps(finite_or_none(value), indent=2, allow_nan=False) + "\n")


def finite_or_none(value: Any) -> Any:
    """The value with None in place of every number that is NaN or infinite."""
    if isinstance(value, dict):
        return {key: finite_or_none(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_none(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def save_model(folder: Path, module: ModelHubMixin) -> None:
    """Write the weights (safetensors), arguments and SHA256SUMS of a module, replacing the folder as a whole.

    Raises:
        OSError: the folder cannot be written; what was there before is left as it was.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{_PART}{folder.name}.") as part:
        new = Path(part) / "new"
        try:
            module.save_pretrained(new)
        except SafetensorError as error:
            raise OSError(f"{folder}: {error}") from error
        files = [file for file in sorted(new.iterdir()) if file.suffix in (".json", ".safetensors")]
        (new / _SUMS).write_text("".join(f"{_sha256(file)}  {file.name}\n" for file in files))
        for file in new.iterdir():
            file.chmod(0o666 & ~_umask())  # safetensors are written for their owner alone
            _sync(file)
        if folder.exists():
            folder.rename(Path(part) / "old")
        new.rename(folder)
        _sync(folder.parent)


def load_model(cls: type[H], folder: Path) -> H:
    """Read what `save_model` wrote; nothing in the files is executed.

    Raises:
        ValueError: there is no such folder, its files are damaged, or they are of another kind of module.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder.parent} has no trained model yet; finish it with --resume")
    _check_sums(folder)
    try:
        with redirect_stdout(io.StringIO()):  # it reports where it found the weights
            return cls.from_pretrained(str(folder), strict=True)
    except Exception as error:  # whatever foreign arguments make a constructor raise
        raise ValueError(f"{folder} holds no {cls.__name__}: {shorten(str(error), 300)}") from error


def _check_sums(folder: Path) -> None:
    path = folder / _SUMS
    for line in path.read_bytes().splitlines() if path.exists() else []:
        digest, _, name = line.decode(errors="replace").partition("  ")
        file = folder / Path(name.replace("\0", "")).name
        if not file.is_file() or _sha256(file) != digest:
            raise ValueError(f"{file} is damaged: it does not have the sha256 in {_SUMS}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    for part in [*out.glob(f"{_PART}*"), *out.glob(f"*/{_PART}*")]:
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


def read_records(run: Path) -> list[dict[str, Any]]:
    """Logged steps of a run, oldest first; a last line cut short by a crash is left out.

    Raises:
        ValueError: another line is damaged.
    """
    path = run / RECORDS
    lines = path.read_bytes().splitlines() if path.exists() else []
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
        elif number < len(lines):
            raise ValueError(f"{path}, line {number}: damaged; --resume writes the log again")
    return records
