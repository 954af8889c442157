"""What there is to say of numbers beside the numbers. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

Severity = Literal["error", "warning", "info"]
ORDER: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """Something to know, or to do: a sentence or two."""

    id: str
    severity: Severity
    message: str


AnyFinding = TypeVar("AnyFinding", bound=Finding)


def by_severity(findings: Sequence[AnyFinding]) -> list[AnyFinding]:
    """The worst first."""
    return sorted(findings, key=lambda one: ORDER.index(one.severity))
