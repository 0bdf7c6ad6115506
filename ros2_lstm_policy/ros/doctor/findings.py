"""What the doctor found: one line each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Finding(NamedTuple):
    """
    One thing that was looked at.

    :param area: what it is about: cameras, checkpoint, disk.
    :param text: what was found; of a fault also what was wanted.
    :param advice: what to do about a fault; empty where nothing is wrong.
    """

    area: str
    text: str
    advice: str = ''

    @property
    def is_fault(self) -> bool:
        """Return whether something is wrong."""
        return bool(self.advice)

    def __str__(self) -> str:
        """Return the line."""
        return (f'FAULT {self.area:10} {self.text}; {self.advice}' if self.is_fault
                else f'ok    {self.area:10} {self.text}')


def summary(findings: Sequence[Finding]) -> str:
    """Return the last line."""
    faults = sum(finding.is_fault for finding in findings)
    return (f'{faults} of {len(findings)} lines say what is wrong' if faults
            else f'nothing is wrong in {len(findings)} lines')
