"""Why an embedding cannot be probed."""

from __future__ import annotations

from importlib.util import find_spec

from geoclip.checks.embed import location_source_problems
from geoclip.config import ProbeConfig

PACKAGES = {"sklearn": "scikit-learn", "h5py": "h5py", "pvlib": "pvlib"}  # import name -> what to install
FEWEST_PLACES = 500  # fewer lie in too few cells for countries to be learnt


def probe_problems(config: ProbeConfig) -> list[str]:
    """Every reason why this probe cannot run, each with its cure."""
    problems = location_source_problems(config)
    absent = [package for name, package in PACKAGES.items() if find_spec(name) is None]
    if absent:
        problems.append(
            f"the probe needs {', '.join(absent)}, not installed: pip install -c constraints.txt -e '.[probe]'"
        )
    if config.places < FEWEST_PLACES:
        problems.append(f"places={config.places} must be {FEWEST_PLACES} or more")
    return problems
