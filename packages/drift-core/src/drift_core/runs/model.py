"""Saved models: weights without pickle, arguments, and checksums of both."""

import hashlib
import io
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from textwrap import shorten
from typing import TypeVar

from huggingface_hub import ModelHubMixin
from safetensors import SafetensorError

from drift_core.files import PART, sync, umask

H = TypeVar("H", bound=ModelHubMixin)

_SUMS = "SHA256SUMS"


def save_model(folder: Path, module: ModelHubMixin) -> None:
    """Write the weights (safetensors), arguments and SHA256SUMS of a module, replacing the folder as a whole.

    Raises:
        OSError: the folder cannot be written; an existing one is left unchanged.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{PART}{folder.name}.") as part:
        new = Path(part) / "new"
        try:
            module.save_pretrained(new)
        except SafetensorError as error:
            raise OSError(f"{folder}: {error}") from error
        (new / "README.md").unlink(missing_ok=True)  # a form to be filled in; `write_card` writes a card
        files = [file for file in sorted(new.iterdir()) if file.suffix in (".json", ".safetensors")]
        (new / _SUMS).write_text("".join(f"{_sha256(file)}  {file.name}\n" for file in files))
        for file in new.iterdir():
            file.chmod(0o666 & ~umask())  # safetensors makes files readable by their owner only
            sync(file)
        if folder.exists():
            folder.rename(Path(part) / "old")
        new.rename(folder)
        sync(folder.parent)


def load_model(cls: type[H], folder: Path) -> H:
    """Load a model that `save_model` wrote; no code in the files is executed.

    Raises:
        ValueError: there is no such folder, its files are damaged, or they are of another class.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder.parent} has no trained model yet; finish it with `resume`")
    _check_sums(folder)
    try:
        with redirect_stdout(io.StringIO()):  # it prints where it found the weights
            return cls.from_pretrained(str(folder), strict=True)
    except Exception as error:  # arguments of another class may raise anything
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
