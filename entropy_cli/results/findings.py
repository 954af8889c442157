"""Findings: what a command reports about its numbers in sentences. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

Severity = Literal["error", "warning", "info"]
ORDER: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """A finding: one or two sentences about a problem or an observation, with advice."""

    id: str
    severity: Severity
    message: str


AnyFinding = TypeVar("AnyFinding", bound=Finding)


def by_severity(findings: Sequence[AnyFinding]) -> list[AnyFinding]:
    """Sort findings by severity, the most severe first."""
    return sorted(findings, key=lambda finding: ORDER.index(finding.severity))
