"""The domains whose runs `sample.py` and `evaluate.py` handle; add your own here."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from drift_core import Domain

_CLASSES = {
    "sphere": "SphereDomain",
    "synthetic": "SyntheticDomain",
    "qm9": "MoleculeDomain",
    "promoter": "PromoterDomain",
}


def _make(name: str) -> Domain[Any, Any, Any]:
    return getattr(import_module(f"drift_{name}.domain"), _CLASSES[name])()


DOMAINS: dict[str, Callable[[], Domain[Any, Any, Any]]] = {name: partial(_make, name) for name in _CLASSES}
"""Constructors of domains by their name in config.json; each is imported when it is called."""
