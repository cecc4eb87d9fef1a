"""The README.md of a run folder: what its files are, and what to do with them."""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from drift_core.files import atomic_path
from drift_core.runs.environment import read_environment
from drift_core.runs.folder import read_config

README = "README.md"


def write_readme(run: Path, samples_file: str) -> None:
    """Write the README.md of a run unless there is one.

    Args:
        run: the run folder.
        samples_file: name of its file of samples.

    Raises:
        ValueError: a file of the run is damaged.
        OSError: the file cannot be written.
    """
    path = run / README
    if path.exists():
        return
    environment = Environment(
        loader=PackageLoader("drift_core.runs"), undefined=StrictUndefined, keep_trailing_newline=True
    )
    text = environment.get_template("run.md").render(
        domain=read_config(run)["domain"],
        program=read_environment(run).get("program", "TRAINING_PROGRAM"),
        samples_file=samples_file,
    )
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")
