"""What the node says about itself: latencies by stage, rates, why it holds; by REP-107."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
import time

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
import numpy as np
from rclpy.impl.rcutils_logger import RcutilsLogger
from ros2_lstm_policy.ros.conversions import time_message
from ros2_lstm_policy.types import Reason

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
Causes = tuple[tuple[str, str], ...]
WAITING = ('no_instruction', 'episode_reset', 'deactivated')
HELD, HOLDING = 'held: ', 'holding: '  # before a reason's code in keys, and its text
_KEPT = 1000
_LOG_PERIOD_S = 5.0
_LINE_PERIOD_S = 1.0


class Latencies:
    """The last thousand durations of each stage between camera and command."""

    def __init__(self) -> None:
        """Begin with none."""
        self._stages: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_KEPT))

    def add(self, stage: str, seconds: float) -> None:
        """Add one duration."""
        self._stages[stage].append(seconds)

    def percentiles_ms(self) -> dict[str, tuple[float, float]]:
        """Return the median and the 99th percentile of each stage in milliseconds."""
        return {stage: tuple(1e3 * np.percentile(list(seconds), (50, 99)))
                for stage, seconds in self._stages.items() if seconds}


class Rate:
    """How often something happens, over the time between two readings."""

    def __init__(self) -> None:
        """Begin now."""
        self.count, self._since_s, self._counted = 0, time.monotonic(), 0

    def add(self) -> None:
        """Count one."""
        self.count += 1

    def read_hz(self) -> float:
        """Return the rate since the last reading."""
        now_s, count = time.monotonic(), self.count
        rate = (count - self._counted) / max(now_s - self._since_s, 1e-6)
        self._since_s, self._counted = now_s, count
        return rate


class Holds:
    """
    Why the robot holds: now, and how often for each reason.

    A reason is logged when it appears, and once more when it is over; never more than once in
    five seconds, however fast it comes and goes. One that stays is logged when these are over: the
    log's last word is what the robot does.
    """

    def __init__(self, logger: RcutilsLogger) -> None:
        """Begin without a reason."""
        self._logger = logger
        self.current: tuple[Reason, ...] = ()
        self.counts: Counter[str] = Counter()
        self._logged_s: dict[Causes, float] = {}
        self._announced, self._is_unsaid = False, False

    def begin(self, reasons: Sequence[Reason]) -> None:
        """Note that the robot holds at this tick."""
        causes = _causes(reasons)
        self._is_unsaid |= causes != _causes(self.current)
        self.current = tuple(reasons)
        self.counts.update(reason.code for reason in reasons)
        if self._is_unsaid and self._may_log(causes):
            self._is_unsaid = False
            text = HOLDING + '; '.join(reason.text for reason in reasons)
            if level(reasons) == WARN:  # two lines: rclpy binds a line of code to one severity
                self._logger.info(text)
            else:
                self._logger.warning(text)
            self._announced = True

    def end(self) -> None:
        """Note that the robot acts at this tick."""
        self.current, self._is_unsaid = (), False
        if self._announced:
            self._logger.info('acting')
            self._announced = False

    def clear(self) -> None:
        """Forget the reason: nobody acts any more."""
        self.current, self._announced, self._is_unsaid = (), False, False

    def _may_log(self, causes: Causes) -> bool:
        now_s = time.monotonic()
        if now_s - self._logged_s.get(causes, -np.inf) < _LOG_PERIOD_S:
            return False
        self._logged_s[causes] = now_s
        return True


class LatestLine:
    """
    Logs what is said, however fast: at once, or the latest of it when a time has passed.

    :param logger: of the node.
    """

    def __init__(self, logger: RcutilsLogger) -> None:
        """Begin with nothing said."""
        self._logger = logger
        self._waiting, self._passed_over, self._logged_s = '', 0, -np.inf

    def say(self, text: str) -> None:
        """Log a line, or keep it until :meth:`catch_up`."""
        self._passed_over += bool(self._waiting)
        self._waiting = text
        if time.monotonic() - self._logged_s >= _LINE_PERIOD_S:
            self.catch_up()

    def catch_up(self) -> None:
        """Log the latest line that waits; to be called about once a second, and at the end."""
        if not self._waiting:
            return
        before = f' (after {self._passed_over} others)' if self._passed_over else ''
        self._logger.info(self._waiting + before)
        self._waiting, self._passed_over, self._logged_s = '', 0, time.monotonic()


def _causes(reasons: Sequence[Reason]) -> Causes:
    return tuple((reason.code, reason.camera) for reason in reasons)


def level(reasons: Sequence[Reason]) -> bytes:
    """Return how bad it is to hold for these reasons."""
    if not reasons:
        return OK
    return WARN if {reason.code for reason in reasons} <= set(WAITING) else ERROR


def status(name: str, severity: bytes, message: str,
           values: Mapping[str, object]) -> DiagnosticStatus:
    """Return one status; the node's name comes first, as REP-107 asks."""
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(level=severity, name=name, message=message, hardware_id='',
                            values=pairs)


def latency_values(latencies: Latencies) -> dict[str, str]:
    """Return the stages' percentiles as keys and values."""
    values = {}
    for stage, (median_ms, p99_ms) in latencies.percentiles_ms().items():
        values[f'{stage} p50 [ms]'] = f'{median_ms:.2f}'
        values[f'{stage} p99 [ms]'] = f'{p99_ms:.2f}'
    return values


def array(stamp_ns: int, statuses: Sequence[DiagnosticStatus]) -> DiagnosticArray:
    """Return the message."""
    message = DiagnosticArray(status=list(statuses))
    message.header.stamp = time_message(stamp_ns)
    return message
