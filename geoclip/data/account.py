"""The account of what a command found: found = used + skipped by reason. Every command that reads data prints it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from geoclip.data.batch import Skip, SkipReport

log = logging.getLogger("geoclip")


@dataclass(kw_only=True, slots=True)
class Account:
    """How many items were found in one source, used, and skipped."""

    what: str  # the source: a key and its value, a folder or a file
    used: int
    skipped: SkipReport = field(default_factory=SkipReport)
    unit: str = "samples"

    @property
    def found(self) -> int:
        """Used and skipped together."""
        return self.used + self.skipped.counts.total()

    @property
    def skipped_share(self) -> float:
        """Share of what was found; 1 if nothing was found."""
        return 1 - self.used / self.found if self.found else 1.0

    def lines(self) -> list[str]:
        """The total, then one line per reason with its first examples; empty if nothing was skipped."""
        if not self.skipped.counts:
            return []
        bad = self.skipped.counts.total()
        total = f"{self.what}: {self.found:,} {self.unit} found = {self.used:,} used + {bad:,} skipped"
        return [total, *(f"  {line}" for line in self.skipped.lines())]

    def log(self) -> None:
        """Log `lines` as warnings."""
        for line in self.lines():
            log.warning("%s", line)


def account_of(what: str, used: int, skipped: list[Skip], unit: str = "samples") -> Account:
    """An account of a list of skips."""
    report = SkipReport()
    report.add(skipped)
    return Account(what=what, used=used, skipped=report, unit=unit)
