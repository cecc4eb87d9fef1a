"""Write the report.html of a finished run again: report.py RUN."""

from drift_core import cli
from drift_core.runs.installed import installed_domains

if __name__ == "__main__":
    cli.report(installed_domains())
