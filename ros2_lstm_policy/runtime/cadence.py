"""Which sets of frames an observation is taken from: one a control period, in the long run."""

from __future__ import annotations

EARLY = 0.3  # of a period: a camera of two or three frames a period then keeps its phase
LATE = 0.5


class Cadence:
    """
    Thins a stream of frames to the policy's period.

    What is due follows from the period, not from when the last set came: cameras of the policy's
    own rate jitter, and a set that follows a late one early is as much a step as any other.

    :param period_ns: control period.
    :ivar last_ns: stamp of the last set that was taken, None before the first.
    """

    def __init__(self, period_ns: int) -> None:
        """Begin with nothing seen."""
        self._period_ns = period_ns
        self._early_ns, self._late_ns = round(EARLY * period_ns), round(LATE * period_ns)
        self.reset()

    def reset(self) -> None:
        """Begin anew: the next set is due, and those after it follow from it."""
        self.last_ns: int | None = None
        self._next_ns = 0

    def takes(self, stamp_ns: int) -> bool:
        """
        Say whether the set of this stamp is due; the next one is then due a period later.

        A stamp before the last one means that the cameras' clock jumped back: it is due.
        """
        jumped_back = self.last_ns is not None and stamp_ns < self.last_ns
        if self.last_ns is None or jumped_back or stamp_ns > self._next_ns + self._late_ns:
            self._next_ns = stamp_ns
        elif stamp_ns == self.last_ns or stamp_ns < self._next_ns - self._early_ns:
            return False
        self.last_ns = stamp_ns
        self._next_ns += self._period_ns
        return True
