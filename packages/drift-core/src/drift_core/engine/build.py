"""The CPU engine's shared library: compiled on first use, and kept in the user's cache folder."""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

from drift_core.files import atomic_path

_FOLDER = Path(__file__).parent
_SOURCES = "pairs.c", "products.c", "tokens.c", "neighbours.c", "threads.c"
_COMPILERS = "cc", "gcc", "clang"
FLAGS = (
    *("-std=gnu11", "-O3", "-march=native", "-ffp-contract=fast", "-Wno-psabi"),
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "--param=avoid-fma-max-bits=0"),
    *("-fPIC", "-pthread"),
)
"""Flags of the compiler, but for linking. Without the parameter, GCC splits some multiply-adds into two
operations on AMD's processors, and others not, so that the last bits of a query's result would depend on
which loop computed it; Clang ignores it."""
_TIMEOUT = 120
"""Seconds that the compiler may take for a file; it needs one to four."""

_PROCESS = os.getpid()
"""The process that imported this: torch's threads are its, and not those of its forks."""

log = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def compiled() -> ctypes.CDLL | None:
    """The library; None without a C compiler, or if compiling or loading it fails (the reason is logged).

    The compiler is `$CC` if set, else the first of cc, gcc and clang that is installed. The file's name
    holds a hash of the sources, the compiler, its flags and the processor.
    """
    compiler = _compiler()
    if compiler is None:
        log.info("no C compiler: fields are computed by torch")
        return None
    try:
        return _load(compiler, f"pairs-{_key(compiler)}.so")
    except (OSError, subprocess.SubprocessError) as error:
        log.info("the CPU engine could not be built, fields are computed by torch: %s", error)
        return None


def _compiler() -> str | None:
    chosen = os.environ.get("CC")
    found = (shutil.which(name) for name in ([chosen] if chosen else _COMPILERS))
    return next((path for path in found if path), None)


def _load(compiler: str, name: str) -> ctypes.CDLL:
    """Load the library from the cache, or compile it first; without a usable cache for this process alone."""
    path = _cache() / name
    try:
        return _open(path)
    except OSError:  # not there, or damaged
        pass
    try:
        return _compile(compiler, path)
    except OSError:
        with tempfile.TemporaryDirectory() as private:
            return _compile(compiler, Path(private) / name)


def _cache() -> Path:
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111  (needs no home)
    return Path(folder) / "drift-core"


def _key(compiler: str) -> str:
    """Hash of everything that the compiled code depends on."""
    version = subprocess.run([compiler, "-v"], capture_output=True, timeout=_TIMEOUT, check=True).stderr
    sources = [path.read_bytes() for path in sorted(_FOLDER.glob("*.[ch]"))]
    parts = [*sources, version, " ".join(FLAGS).encode(), _processor().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _processor() -> str:
    """What `-march=native` depends on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    features = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    return "\n".join([platform.platform(), platform.machine(), platform.processor(), *features])


def _compile(compiler: str, path: Path) -> ctypes.CDLL:
    """Compile the sources side by side, link and load them.

    The library's file appears whole or not at all, and only if it can be loaded.
    """
    run = partial(subprocess.run, capture_output=True, timeout=_TIMEOUT, check=True)
    with atomic_path(path) as part, tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        objects = [str(Path(folder) / f"{name}.o") for name in _SOURCES]
        pairs = zip(_SOURCES, objects, strict=True)
        list(pool.map(run, ([compiler, *FLAGS, "-c", str(_FOLDER / name), "-o", to] for name, to in pairs)))
        run([compiler, "-shared", "-pthread", *objects, "-o", str(part), "-lm"])
        return _open(part)  # stays mapped when the file is renamed or removed


def _open(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    library.drift_find_openmp(_PROCESS)
    return library
