"""Run folders: created once, never overwritten, resumed with the same settings unless changes are allowed."""

import json
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from accelerate import Accelerator

from drift_core.files import PART, write_json
from drift_core.training.config import TrainConfig, from_json, to_json
from drift_core.training.parallel import on_main, warn

CONFIG = "config.json"
METRICS = "metrics.json"

C = TypeVar("C", bound=TrainConfig)

# Settings of storage and reporting, which may differ when a run is resumed.
_ELSEWHERE = ("data_dir", "eval_draws", "tracker", "log_every", "save_every", "keep")


class Place(NamedTuple):
    """Folder of a run, and whether to resume it."""

    out: Path | None = None
    """Folder of the run; none: runs/<domain>/<time>."""
    resume: bool = False
    """Continue the run in that folder."""
    allow_changes: bool = False
    """Accept changed settings, which are then listed in config.json."""

    def check(self) -> None:
        """Raise ValueError for `resume` without `out`, or `allow_changes` without `resume`."""
        if self.resume and self.out is None:
            raise ValueError("`resume` needs `out`, the folder of the run to continue")
        if self.allow_changes and not self.resume:
            raise ValueError("`allow_changes` is for continuing a run; it needs `resume`")


def open_run(config: TrainConfig, domain: str, place: Place, accelerator: Accelerator) -> Path:
    """Create the folder of a new run, or check that of a run to resume; the same on every process.

    Raises:
        ValueError: the folder of a new run is not empty, or the run to resume is of another domain, or
            its settings differ without `allow_changes`.
        OSError: the folder cannot be written.
    """
    place.check()
    out = place.out or Path("runs") / domain / time.strftime("%Y%m%d-%H%M%S")
    work = partial(_open_run, config, domain, place._replace(out=out), partial(warn, accelerator))
    out = on_main(accelerator, work)
    accelerator.project_configuration.logging_dir = str(out)
    plain = {key: v if isinstance(v, int | float) else str(v) for key, v in config.flat().items()}
    accelerator.init_trackers(domain, {"domain": domain, **plain})
    return out


def _open_run(config: TrainConfig, domain: str, place: Place, notify: Callable[[str], None]) -> Path:
    out, settings = place.out or Path(), {"domain": domain, **to_json(config)}
    if not place.resume:
        _create_run(out)
        write_json(out / CONFIG, settings)
        return out
    changes = _check_resumes(out, config, domain, place.allow_changes)
    _sweep(out)
    if changes:
        notify(f"{out} goes on with other settings: {', '.join(changes)}")
        history = read_config(out).get("changes")
        earlier = history if isinstance(history, list) else []
        write_json(out / CONFIG, {**settings, "changes": [*earlier, *changes]})
    return out


def _create_run(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"`out` {out} is a file; name a new folder")
    if out.is_dir():
        _sweep(out)
        if any(out.iterdir()):
            held = "already holds a run" if (out / CONFIG).exists() else "is not empty"
            raise ValueError(f"`out` {out} {held}; name a new folder, or continue a run with `resume`")
    out.mkdir(parents=True, exist_ok=True)


def _sweep(out: Path) -> None:
    """Remove the unfinished files of a killed run."""
    for part in [*out.glob(f"{PART}*"), *out.glob(f"*/{PART}*")]:
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink()


def _check_resumes(out: Path, config: TrainConfig, domain: str, allow_changes: bool) -> list[str]:
    """Changed settings of a run to resume; raises ValueError unless changes are allowed."""
    stored = read_config(out)
    if stored["domain"] != domain:
        raise ValueError(f"`resume`: {out} is a run of the domain {stored['domain']!r}, not of {domain!r}")
    changes = changed_settings(config, stored)
    if changes and not allow_changes:
        hint = "`allow_changes` goes on with the new ones"
        raise ValueError(f"`resume`: the settings of {out} differ: {', '.join(changes)}; {hint}")
    return changes


def changed_settings(
    config: TrainConfig, stored: Mapping[str, Any], free: Collection[str] = _ELSEWHERE
) -> list[str]:
    """What differs from the settings that `read_config` returned, but for those that are `free` to differ.

    Raises ValueError as `restore_config` does.
    """
    before, now = restore_config(type(config), stored).flat(), config.flat()
    keys = [key for key in now if key not in free and before[key] != now[key]]
    return [f"{key} was {before[key]!r}, is {now[key]!r}" for key in keys]


def read_config(run: Path) -> dict[str, Any]:
    """Configuration of a finished or stopped run, as written by `open_run`.

    Raises:
        ValueError: the folder holds no run, or its config.json is damaged.
    """
    path = run / CONFIG
    if not path.is_file():
        raise ValueError(f"{run} holds no run: there is no {CONFIG} in it")
    config = read_settings(path)
    if not isinstance(config.get("domain"), str):
        raise ValueError(f"{path} is damaged: it names no domain")
    return config


def read_settings(path: Path) -> dict[str, Any]:
    """Settings in a JSON file, in the form of a run's config.json.

    Raises:
        ValueError: the file is not a JSON object.
        OSError: it cannot be read.
    """
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path} is damaged: it holds no settings")
    return settings


def restore_config(cls: type[C], stored: Mapping[str, Any]) -> C:
    """Configuration dataclass from what `read_config` returned.

    Raises:
        ValueError: an unknown setting, or a value of the wrong type or out of range.
    """
    settings = {key: value for key, value in stored.items() if key not in ("domain", "changes")}
    try:
        config = from_json(cls(), settings)
        config.check()
        return config
    except ValueError as error:
        raise ValueError(f"{CONFIG} of the run is damaged: {error}") from None
