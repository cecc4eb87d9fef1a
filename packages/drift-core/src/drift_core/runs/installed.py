"""Domains of the installed packages, found through their entry points."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from drift_core.runs.domain import Domain

GROUP = "drift.domains"
"""Group of entry points: a package declares `name = "module:DomainClass"`, by the domain's name."""

AnyDomain = Domain[Any, Any, Any]
Domains = Mapping[str, Callable[[], AnyDomain]]
"""Constructors of domains by their name in config.json; each may import its domain when called."""


def installed_domains() -> Domains:
    """Constructors of the domains of all installed packages, in alphabetical order."""
    found = sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
    return {entry.name: partial(_make, entry) for entry in found}


def _make(entry: EntryPoint) -> AnyDomain:
    domain: AnyDomain = entry.load()()
    return domain
