"""The command `drift`, also `python -m drift_core`: the applications of all installed domains."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches

from drift_core import cli
from drift_core.runs.installed import Domains, installed_domains

_USAGE = """\
usage: drift COMMAND [-h] [OPTIONS]

Train and use one-step generators.

  drift train DOMAIN    train a generator, score it and draw its samples
  drift sample RUN      draw samples from the generator of a finished run
  drift evaluate RUN    score the generator of a finished run
  drift report RUN      write the page of a finished run again

Installed domains: {domains}. A command's own --help lists its options:

  drift train {first} --help
"""


def main() -> None:
    """Run the command that the arguments name."""
    cli.run(lambda: dispatch(sys.argv[1:], installed_domains()))


def dispatch(arguments: Sequence[str], domains: Domains) -> None:
    """Run a command as the application of its name (apps/train_<domain>.py, apps/sample.py, ...) would.

    Raises:
        ValueError: an unknown command or domain, or no domain is installed.
    """
    if not domains:
        raise ValueError("no domain is installed; install a package that has one, such as drift-sphere")
    match arguments:
        case [] | ["-h" | "--help"] | ["train"] | ["train", "-h" | "--help"]:
            print(_USAGE.format(domains=", ".join(domains), first=next(iter(domains))), end="")
        case ["train", name, *options]:
            check_known("domain", name, domains)
            domain = domains[name]()
            sys.argv = [f"drift train {name}", *options]  # what the help text calls this program
            cli.train(domain)
        case [command, *options]:
            applications = {"sample": cli.sample, "evaluate": cli.evaluate, "report": cli.report}
            check_known("command", command, ["train", *applications])
            sys.argv = [f"drift {command}", *options]
            applications[command](domains)


def check_known(what: str, name: str, known: Sequence[str] | Domains) -> None:
    """Raise ValueError, which suggests the nearest name, for one that is not known."""
    if name in known:
        return
    nearest = get_close_matches(name, list(known), n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    raise ValueError(f"there is no {what} {name}, only {', '.join(known)}{hint}")


if __name__ == "__main__":
    main()
