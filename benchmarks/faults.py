"""
Inject faults into the running policy node, over real DDS, and measure what the robot was told.

One fault at a time: the node acts, the fault begins, and until it is over every message on the
topics of motion is kept with its DDS source timestamp. The contract is in docs/reliability.md:
after a stated time the robot is told nothing but holds, or goes on acting by right; afterwards it
acts again, by itself or by the named remedy. `--random SECONDS` injects up to three at once, drawn
with a seed. `python benchmarks/faults.py --table docs/reliability.md` rewrites its table, and
`--only none --losses 300 --picture docs/camera_loss.png` draws the distribution of the time from
the last frame to the first hold. Of resets see reset_storm.py, which compares values.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import os
from pathlib import Path
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

import beside_tests  # noqa: F401 (where node_robot is)
from node_robot import (ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE, image_message, node_process,
                        Robot, small_checkpoint, still)
import numpy as np
from rclpy.qos import QoSProfile
from ros2_lstm_policy.ros import nodes
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import SetBool

WORDS = 'pick up the milk'
PERIOD_S, AGE_S, DEADLINE_S, FROZEN_S = 0.1, 0.2, 0.3, 0.5
MARGIN_S = 0.15  # of this machine and DDS: threads that are woken late
BEGIN, END = '<!-- faults.py begins -->', '<!-- faults.py ends -->'


class Sent(NamedTuple):
    """One message of motion: when it was sent, by DDS, and whether it moves."""

    at_s: float
    moves: bool


class Lab(Robot):
    """The robot's side, with its cameras' images to be spoilt and every command kept."""

    def __init__(self) -> None:
        """Join the domain."""
        super().__init__()
        self.sent: list[Sent] = []
        self.hold_client = self.node.create_client(SetBool, 'policy/hold')
        self.last_frame_s, self.process = 0.0, None

    def _take_arm(self, message: Any, info: Any) -> None:
        super()._take_arm(message, info)
        self.sent.append(Sent(info['source_timestamp'] / 1e9, not still(message)))

    def show(self, stamp_ns: int, image: Any = None) -> None:
        """Publish a frame of each camera, and remember when."""
        super().show(stamp_ns, image)
        self.last_frame_s = time.time()

    def until_acting(self, timeout_s: float = 60.0) -> float:
        """Wait for three commands in a row; return how long that took."""
        begin_s = time.time()
        self.until(lambda: len(self.sent) >= 3 and all(
            sent.moves and sent.at_s > begin_s for sent in self.sent[-3:]), timeout_s)
        return time.time() - begin_s

    def hold(self, data: bool) -> None:
        """Call ~/hold."""
        assert self.call(self.hold_client, SetBool.Request(data=data)).success


class Fault(NamedTuple):
    """
    One fault.

    :param begin: injects it; returns what ends it.
    :param within_s: from its beginning to the last command that moves; None: acting on is right.
    :param remedy: what is needed after its end for the robot to act; empty: nothing.
    :param lasts_s: how long it is there.
    :param is_from_then: whether time counts from the answer that it has begun.
    """

    name: str
    said: str
    begin: Callable[[Lab], Callable[[], object]]
    within_s: float | None
    remedy: str = ''
    lasts_s: float = 2.0
    is_from_then: bool = False


class Found(NamedTuple):
    """What came of one fault: :param last_s: the last command that moved after its beginning."""

    fault: Fault
    last_s: float | None
    first_hold_s: float | None
    commands: int
    holds: int
    recovered_s: float
    said: str

    @property
    def is_good(self) -> bool:
        """Return whether the contract was kept."""
        within_s = self.fault.within_s
        return within_s is None or self.last_s is None or self.last_s <= within_s


def changed(lab: Lab, **values: Any) -> Callable[[], object]:
    """Change attributes of the lab; return what puts them back."""
    before = {name: getattr(lab, name) for name in values}
    lab.__dict__.update(values)
    return lambda: lab.__dict__.update(before)


def frozen(lab: Lab) -> Callable[[], object]:
    """Show one image with new stamps on one camera."""
    pixels = np.random.default_rng(1).integers(0, 255, (48, 64, 3), np.uint8)

    def change(name: str, message: Any) -> None:
        if name == 'hand':
            message.data = pixels.tobytes()
    return changed(lab, change_image=change)


def spoilt(what: Callable[[Any, int], None]) -> Callable[[Lab], Callable[[], object]]:
    """Return a fault that changes the messages of one camera."""
    def begin(lab: Lab) -> Callable[[], object]:
        count = [0]

        def change(name: str, message: Any) -> None:
            count[0] += 1
            if name == 'hand':
                what(message, count[0])
        return changed(lab, change_image=change)
    return begin


def other_size(message: Any, count: int) -> None:
    """Give every second image another size."""
    if count % 4 < 2:
        other = image_message(np.random.default_rng(count).integers(
            0, 255, (96, 128, 3), np.uint8), 0)
        message.height, message.width, message.step = other.height, other.width, other.step
        message.data = other.data


def other_encoding(message: Any, count: int) -> None:
    """Give every second image an encoding without a colour."""
    message.encoding = '32FC1' if count % 4 < 2 else message.encoding


def cut(message: Any, count: int) -> None:
    """Leave bytes out."""
    message.data = message.data[:-7]


def no_stamp(message: Any, count: int) -> None:
    """Stamp nothing."""
    message.header.stamp.sec = message.header.stamp.nanosec = 0


def second_camera(lab: Lab) -> Callable[[], object]:
    """Add a publisher on the hand camera's topic."""
    publisher = lab.node.create_publisher(Image, 'hand_rgb', 5)
    return lambda: lab.node.destroy_publisher(publisher)


def second_commander(lab: Lab) -> Callable[[], object]:
    """Add a publisher on a command topic."""
    from geometry_msgs.msg import TwistStamped
    publisher = lab.node.create_publisher(TwistStamped, 'policy/arm_delta', 5)
    return lambda: lab.node.destroy_publisher(publisher)


def storm(texts: Callable[[int], str], count: int) -> Callable[[Lab], Callable[[], object]]:
    """Return a fault that says many words at once."""
    def begin(lab: Lab) -> Callable[[], object]:
        publisher = lab.node.create_publisher(String, 'instruction', QoSProfile(depth=1000))
        lab.until_heard(publisher)
        for number in range(count):
            publisher.publish(String(data=texts(number)))

        def end() -> None:
            lab.node.destroy_publisher(publisher)
            lab.order(WORDS)
        return end
    return begin


def parameter_storm(lab: Lab) -> Callable[[], object]:
    """Set parameters, good and bad ones, as fast as they are answered."""
    for number in range(40):
        lab.give(deadline_s=0.2 + 0.001 * number, max_linear_speed_m_s=0.4)
        lab.give(deadline_s=-1.0, threads=2)
    return lambda: lab.give(deadline_s=DEADLINE_S)


def resets(lab: Lab) -> Callable[[], object]:
    """Reset as fast as it is answered."""
    for _ in range(50):
        lab.reset()
    return lambda: None


def stopped(lab: Lab) -> Callable[[], object]:
    """Stop the process, as a debugger or an overloaded machine does."""
    lab.process.send_signal(signal.SIGSTOP)
    return lambda: lab.process.send_signal(signal.SIGCONT)


def deactivated(lab: Lab) -> Callable[[], object]:
    """Deactivate."""
    assert lab.change(DEACTIVATE)

    def end() -> None:
        assert lab.change(ACTIVATE)
        lab.order(WORDS)
    return end


def transitions(lab: Lab) -> Callable[[], object]:
    """Ask for transitions in random order; nothing but holds may come of it."""
    random = np.random.default_rng(3)
    for transition in random.choice([CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE], 12):
        lab.change(int(transition))
    if lab.state() == 'active':
        lab.change(DEACTIVATE)

    def end() -> None:
        if lab.state() == 'unconfigured':
            assert lab.change(CONFIGURE)
        assert lab.change(ACTIVATE)
        lab.order(WORDS)
    return end


def twin(lab: Lab) -> Callable[[], object]:
    """Start a second node of the same name that waits to be configured."""
    other = subprocess.Popen(nodes.command(nodes.POLICY), env={**os.environ,
                                                               **nodes.environment()},
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lab.until(lab.holds('nodes are named'))

    def end() -> None:
        other.send_signal(signal.SIGINT)
        other.wait(30)
    return end


def held(lab: Lab) -> Callable[[], object]:
    """Have a person hold the robot."""
    lab.hold(True)
    return lambda: lab.hold(False)


SEEN_S = PERIOD_S + AGE_S + MARGIN_S
AT_ONCE_S = PERIOD_S + MARGIN_S
FAULTS = (
    Fault('camera_stops', 'one camera stops', lambda lab: changed(lab, cameras={'static'}),
          SEEN_S),
    Fault('cameras_stop', 'both cameras stop', lambda lab: changed(lab, cameras=set()), SEEN_S),
    Fault('camera_freezes', 'one camera: one image, new stamps', frozen,
          FROZEN_S + 2 * PERIOD_S + MARGIN_S, lasts_s=3.0),
    Fault('camera_lags', 'both cameras 0.5 s late',
          lambda lab: changed(lab, stamp_offset_s=-0.5), SEEN_S),
    Fault('camera_ahead', 'the cameras live in another clock: 5 s ahead',
          lambda lab: changed(lab, stamp_offset_s=5.0), AT_ONCE_S),
    Fault('camera_resizes', 'images flicker between two sizes', spoilt(other_size), None),
    Fault('camera_recodes', 'images flicker between encodings', spoilt(other_encoding), None),
    Fault('camera_cut', 'images with bytes missing', spoilt(cut), AT_ONCE_S),
    Fault('camera_unstamped', 'images without a stamp', spoilt(no_stamp), AT_ONCE_S),
    Fault('camera_floods', 'cameras at 500 Hz', lambda lab: changed(lab, rate_hz=500.0), None),
    Fault('camera_slow', 'cameras at 4 Hz', lambda lab: changed(lab, rate_hz=4.0), None),
    Fault('second_camera', 'a second publisher on a camera', second_camera, AT_ONCE_S + 0.3),
    Fault('second_commander', 'a second publisher of commands', second_commander,
          AT_ONCE_S + 0.3),
    Fault('twin', 'a second node of the same name', twin, AT_ONCE_S,
          is_from_then=True),
    Fault('words_storm', '1,000 instructions at once', storm(lambda n: f'do {n}', 1000), None,
          'the instruction'),
    Fault('words_long', 'an instruction of 1 MB', storm(lambda n: 'milk ' * 200_000, 1),
          AT_ONCE_S + 0.3, 'the instruction'),
    Fault('words_empty', 'an empty instruction', storm(lambda n: ' ', 1), AT_ONCE_S,
          'the instruction'),
    Fault('parameters', 'parameters set in a storm', parameter_storm, None),
    Fault('resets', '50 resets, as fast as answered', resets, None),
    Fault('deactivate', 'deactivated', deactivated, 0.0, 'activate, the instruction',
          is_from_then=True),
    Fault('transitions', 'transitions in random order', transitions, 0.0,
          'configure, activate, the instruction', is_from_then=True),
    Fault('stopped', 'the process is stopped (SIGSTOP)', stopped, AT_ONCE_S),
    Fault('hold', 'a person calls ~/hold', held, 0.0, '`~/hold` with false', is_from_then=True),
)


def inject(lab: Lab, fault: Fault) -> Found:
    """Inject one fault, wait, end it, wait until the robot acts again."""
    lab.until_acting()
    lab.sent.clear()
    begin_s = time.time()
    end = fault.begin(lab)
    begin_s = time.time() if fault.is_from_then else begin_s
    lab.listen(fault.lasts_s)
    said = lab.message('commands').partition('holding: ')[2]
    end_s = time.time()
    sent = [one for one in lab.sent if one.at_s >= begin_s]
    end()
    recovered_s = lab.until_acting()
    moved = [one.at_s - begin_s for one in sent if one.moves and one.at_s <= end_s]
    held_s = [one.at_s - begin_s for one in sent if not one.moves]
    return Found(fault, max(moved, default=None), min(held_s, default=None), len(moved),
                 len(held_s), recovered_s, said)


def at_random(lab: Lab, seconds: float, seed: int) -> tuple[int, int]:
    """Inject up to three faults at once; return how often, and commands that moved wrongly."""
    random, count, wrong = np.random.default_rng(seed), 0, 0
    simple = [fault for fault in FAULTS if fault.name in (
        'camera_stops', 'camera_freezes', 'camera_lags', 'camera_ahead', 'camera_cut', 'resets',
        'camera_floods', 'parameters', 'second_camera', 'hold', 'deactivate', 'words_storm')]
    end_s = time.time() + seconds
    while time.time() < end_s:
        chosen = [simple[k] for k in random.choice(len(simple), random.integers(1, 4), False)]
        ends = [fault.begin(lab) for fault in chosen]
        lab.listen(float(random.uniform(0.1, 1.5)))
        must_hold = [fault.within_s for fault in chosen if fault.within_s is not None]
        if must_hold:
            lab.listen(min(must_hold) + 0.3)
            quiet_s = time.time()
            lab.listen(0.3)
            wrong += sum(one.moves for one in lab.sent if one.at_s > quiet_s)
        for end in reversed(ends):
            end()
        lab.__dict__.update(rate_hz=20.0, stamp_offset_s=0.0, cameras={'static', 'hand'},
                            change_image=lambda name, message: None)
        lab.order(WORDS)
        lab.until_acting()
        lab.sent.clear()
        count += len(chosen)
    return count, wrong


def row(found: Found) -> str:
    """Return one row of the table."""
    def shown(seconds: float | None) -> str:
        return '—' if seconds is None else f'{max(seconds, 0):.2f} s'
    fault = found.fault
    wanted = 'acts on' if fault.within_s is None else f'{fault.within_s:.2f} s'
    seen = found.said[:70].replace('|', ' ') or ('acts' if found.commands else 'silent')
    good = '' if found.is_good else ' **broken**'
    return (f'| {fault.said} | {seen} | {shown(found.first_hold_s)} | {shown(found.last_s)} | '
            f'{wanted}{good} | {found.commands}, {found.holds} | '
            f'{fault.remedy or "by itself"}, {found.recovered_s:.1f} s |')


def table(rows: list[Found], random: tuple[int, int] | None) -> str:
    """Return the table as Markdown."""
    lines = ['| injected | the node says | first hold | last command | contract: at most | '
             'commands, holds meanwhile | recovered |', '|---|---|---|---|---|---|---|',
             *map(row, rows)]
    if random:
        lines += ['', f'At random, up to three at once: {random[0]} faults, {random[1]} commands '
                  'that moved where a fault among them demanded a hold.']
    return '\n'.join(lines)


def picture(times_s: list[float], path: Path) -> None:
    """Draw the distribution of the time to the first hold."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(figsize=(7, 3.5))
    axes.hist(1e3 * np.array(times_s), bins=40)
    axes.axvline(1e3 * (AGE_S + PERIOD_S), color='black', linestyle='--',
                 label='age + one period')
    axes.set_xlabel('last frame to first hold [ms]')
    axes.set_ylabel(f'of {len(times_s)} tries')
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def losses(lab: Lab, seconds: float) -> list[float]:
    """Lose both cameras again and again; return the time from the last frame to the first hold."""
    times, end_s = [], time.time() + seconds
    random = np.random.default_rng(0)
    while time.time() < end_s:
        lab.until_acting()
        lab.listen(float(random.uniform(0, PERIOD_S)))
        lab.sent.clear()
        lost_s, lab.cameras = lab.last_frame_s, set()
        lab.until(lambda: any(not one.moves for one in lab.sent))
        times.append(next(one.at_s for one in lab.sent if not one.moves) - lost_s)
        lab.cameras = {'static', 'hand'}
    return times


def stops(lab: Lab, seconds: float) -> dict[str, tuple[int, int]]:
    """
    Hold and deactivate in turn at random moments.

    :return: by what was done: how often, and commands that moved the robot after the answer.
    """
    random, found, end_s = np.random.default_rng(0), {}, time.time() + seconds
    while time.time() < end_s:
        for name, begin in (('hold', held), ('deactivate', deactivated)):
            lab.until(lambda: lab.sent and lab.sent[-1].moves)
            lab.listen(float(random.uniform(0, PERIOD_S)))
            end = begin(lab)
            answered_s = time.time()
            lab.listen(0.15)
            late = sum(one.moves for one in lab.sent if one.at_s > answered_s)
            count, wrong = found.get(name, (0, 0))
            found[name] = count + 1, wrong + late
            end()
            lab.sent.clear()
            lab.forget()
    return found


def main() -> int:
    """Run; return 0 where every contract was kept."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('--only', nargs='*', help='names of faults: '
                        + ', '.join(fault.name for fault in FAULTS))
    parser.add_argument('--random', type=float, default=0.0, help='seconds of faults at random')
    parser.add_argument('--losses', type=float, default=0.0, help='seconds of camera losses')
    parser.add_argument('--stops', type=float, default=0.0,
                        help='seconds of holds and deactivations')
    parser.add_argument('--picture', type=Path, help='of the losses')
    parser.add_argument('--table', type=Path, help='the page whose table is replaced')
    parser.add_argument('--seed', type=int, default=0, help='of the faults at random')
    options = parser.parse_args()
    chosen = [fault for fault in FAULTS if options.only is None or fault.name in options.only]
    os.environ.update(nodes.environment())
    lab, rows, random = Lab(), [], None
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / 'node.log'
        with node_process(log) as process:
            lab.process = process
            lab.bring_to('active', checkpoint=str(small_checkpoint(Path(scratch) / 'tiny')),
                         instruction=WORDS, max_image_age_s=AGE_S, deadline_s=DEADLINE_S,
                         max_frozen_s=FROZEN_S)
            for fault in chosen:
                rows.append(inject(lab, fault))
                print(row(rows[-1]), flush=True)
            if options.random:
                random = at_random(lab, options.random, options.seed)
            if options.stops:
                for name, (count, wrong) in stops(lab, options.stops).items():
                    print(f'{name}: {count} tries, {wrong} commands after the answer')
            if options.losses:
                times = losses(lab, options.losses)
                print(f'{len(times)} losses: median {1e3 * np.median(times):.0f} ms, p99 '
                      f'{1e3 * np.percentile(times, 99):.0f} ms, most {1e3 * max(times):.0f} ms; '
                      f'age + period {1e3 * (AGE_S + PERIOD_S):.0f} ms')
                if options.picture:
                    picture(times, options.picture)
        lab.close()
    text = table(rows, random)
    print(text)
    if options.table:
        page = options.table.read_text()
        head, tail = page.partition(BEGIN)[0], page.partition(END)[2]
        options.table.write_text(f'{head}{BEGIN}\n{text}\n{END}{tail}')
    return 0 if all(found.is_good for found in rows) and not (random and random[1]) else 1


if __name__ == '__main__':
    sys.exit(main())
