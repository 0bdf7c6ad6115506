"""Confidence intervals of success rates, and a test of two on the same episodes."""

from __future__ import annotations

import math
from typing import NamedTuple

_Z_95 = 1.959963984540054


class Rate(NamedTuple):
    """
    Successes of a number of trials.

    :param low: lower end of the 95 % interval, 0 to 1.
    """

    successes: int
    trials: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Return the share of successes, 0 to 1."""
        return self.successes / self.trials

    def __str__(self) -> str:
        """Return, for example, '38/50 (76 %, 63 to 86)'."""
        return (f'{self.successes}/{self.trials} ({100 * self.share:.0f} %, '
                f'{100 * self.low:.0f} to {100 * self.high:.0f})')


def wilson(successes: int, trials: int) -> Rate:
    """
    Return the rate with its 95 % score interval.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, 1927.

    :raises ValueError: where there is no trial, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f'expected 0 <= successes <= trials and a trial, found {successes} '
                         f'of {trials}')
    share, square = successes / trials, _Z_95 ** 2
    middle = share + square / (2 * trials)
    spread = _Z_95 * math.sqrt(share * (1 - share) / trials + square / (4 * trials ** 2))
    scale = 1 + square / trials
    return Rate(successes, trials, max(0.0, (middle - spread) / scale),
                min(1.0, (middle + spread) / scale))


def exact_mcnemar(won: int, lost: int) -> float:
    """
    Return how likely a difference at least as large is where neither is better (two-sided p).

    Q. McNemar, Note on the sampling error of the difference between correlated proportions, 1947;
    exact: episodes that only one of two succeeds in are fair coins.

    :param won: episodes that only the one succeeded in.
    :param lost: episodes that only the other succeeded in.
    """
    tail = sum(math.comb(won + lost, k) for k in range(min(won, lost) + 1))
    return min(1.0, 2 * tail / 2 ** (won + lost))
