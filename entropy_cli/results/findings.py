"""Findings: what a command reports about its numbers in sentences. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, TypeVar

Severity = Literal["error", "warning", "info"]
ORDER: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """A finding: one or two sentences about a problem or an observation, with advice."""

    id: str
    severity: Severity
    message: str


def difference(last: str, first: str) -> str:
    """Return the difference of two printed numbers, so that a sentence adds up.

    >>> difference("0.1481", "0.08328")
    '0.06482'
    """
    return f"{Decimal(last) - Decimal(first):f}"


AnyFinding = TypeVar("AnyFinding", bound=Finding)


def by_severity(findings: Sequence[AnyFinding]) -> list[AnyFinding]:
    """Sort findings by severity, the most severe first."""
    return sorted(findings, key=lambda finding: ORDER.index(finding.severity))
