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
WAITING = ('no_instruction', 'episode_reset', 'deactivated', 'operator_hold', 'dead_man',
           'operator_silent')
HELD, HOLDING = 'held: ', 'holding: '  # before a reason's code in keys, and its text
_KEPT = 1000
_LOG_PERIOD_S = 5.0
_ACTING = 'acting'


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


class LatestLine:
    """
    Logs what is said, however fast: at once, or the latest of it when a time has passed.

    The log's last word is true: a line that waited for its time is dropped where meanwhile what
    the log says last holds again.

    :param logger: of the node.
    :param period_s: least time between two lines about one cause.
    :param cause: what is taken to be said already.
    """

    def __init__(self, logger: RcutilsLogger, period_s: float, cause: object = None) -> None:
        """Begin with nothing said."""
        self._logger, self._period_s = logger, period_s
        self._waiting: tuple[str, object, bool] | None = None
        self._passed_over, self._last = 0, cause
        self._logged_s: dict[object, float] = {}

    def say(self, text: str, cause: object = None, *, is_bad: bool = False) -> None:
        """
        Log a line, or keep it until it is due or :meth:`catch_up`.

        :param cause: what it is about; what the log's last line is about is not said again,
            whatever numbers are in the text. None: each text is news.
        """
        if cause is not None and cause == self._last:
            self._waiting, self._passed_over = None, 0
            return
        if self._waiting is not None and (cause is None or cause != self._waiting[1]):
            self._passed_over += 1
        self._waiting = text, cause, is_bad
        if time.monotonic() - self._logged_s.get(cause, -np.inf) >= self._period_s:
            self.catch_up()

    def catch_up(self) -> None:
        """Log the latest line that waits; to be called once a period at most, or at the end."""
        if self._waiting is None:
            return
        text, cause, is_bad = self._waiting
        text += f' (after {self._passed_over} others)' if self._passed_over else ''
        if is_bad:  # two lines: rclpy binds a line of code to one severity
            self._logger.warning(text)
        else:
            self._logger.info(text)
        self._logged_s[cause], self._last = time.monotonic(), cause
        self._waiting, self._passed_over = None, 0


class Holds:
    """
    Why the robot holds: now, and how often for each reason.

    A reason is logged when it appears, and once more when it is over; never more than once in
    five seconds, however fast it comes and goes.
    """

    def __init__(self, logger: RcutilsLogger) -> None:
        """Begin without a reason."""
        self._logger = logger
        self.current: tuple[Reason, ...] = ()
        self.counts: Counter[str] = Counter()
        self.clear()

    def begin(self, reasons: Sequence[Reason]) -> None:
        """Note that the robot holds at this tick."""
        self.current = tuple(reasons)
        self.counts.update(reason.code for reason in reasons)
        self._log.say(HOLDING + '; '.join(reason.text for reason in reasons), _causes(reasons),
                      is_bad=level(reasons) != WARN)

    def end(self) -> None:
        """Note that the robot acts at this tick."""
        self.current = ()
        self._log.say('acting', _ACTING)

    def clear(self) -> None:
        """Forget the reason: nobody acts any more."""
        self.current = ()
        self._log = LatestLine(self._logger, _LOG_PERIOD_S, _ACTING)


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
