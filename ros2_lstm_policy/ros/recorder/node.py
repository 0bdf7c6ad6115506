"""
Records episodes: one bag each, with the words, the frames, the actions and the outcome.

Services: ~/start, ~/stop, ~/discard (Trigger) and ~/label (SetBool: true for success). With
`automatic` the topics `instruction` and `episode/success` do the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import contextlib
import datetime
import os
from pathlib import Path
import sys
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from ros2_lstm_policy.data.rosbag import format as bag, set_aside_unfinished
from ros2_lstm_policy.data.rosbag.background import BackgroundBag, Message
from ros2_lstm_policy.ros import diagnostics, nodes
from ros2_lstm_policy.ros.lifecycle import run
from ros2_lstm_policy.ros.node_arguments import answer
from ros2_lstm_policy.ros.recorder.answers import answering, Ended, RecordingRefused
from ros2_lstm_policy.ros.recorder.body import declared_body
from ros2_lstm_policy.ros.recorder.checks import clock_problems, Expected, problems
from ros2_lstm_policy.ros.recorder.inputs import RecorderInputs, streams
from ros2_lstm_policy.ros.recorder.parameters import RecorderParameters, RecorderSettings
from std_srvs.srv import SetBool, Trigger

FINGERPRINT = 'checkpoint sha256'
_CHECK_PERIOD_S = 0.5
_LONGEST_DRAIN_S = 5.0  # where the clocks of two machines differ
_MB = 1_000_000


class RecorderNode(Node):
    """The recorder."""

    def __init__(self) -> None:
        """Declare, subscribe, and say what an earlier recorder left unfinished."""
        super().__init__('recorder')
        self._body = declared_body(self)
        self._table = RecorderParameters(self, self._body.manifest if self._body else None)
        for line in self._table.unknown:
            self.get_logger().warning(line)
        settings = self._table.read()
        self._root = Path(settings.directory).expanduser()
        self._bag: BackgroundBag | None = None
        self._began_ns = 0
        self._instruction, self._model = '', ''
        self._success: bool | None = None
        self._outcome_ns: int | None = None  # when it was said that the episode is over
        self._outcome_heard_s, self._is_drained = 0.0, False
        self._last: Ended | None = None
        for moved in self._left_over():
            self.get_logger().error(
                f'an earlier recorder was killed while it wrote {moved.name}: that episode is '
                f'lost; what is left of it is in {moved}')
        self._inputs = RecorderInputs(self, streams(settings, self._body), self._take,
                                      self._take_instruction, self._take_success)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._take_diagnostics, 10)
        self._status = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        for name, work in (('start', self.start), ('stop', self.stop), ('discard', self.discard)):
            self.create_service(Trigger, f'~/{name}', answering(self, work))
        self.create_service(SetBool, '~/label', self._serve_label)
        self.create_timer(_CHECK_PERIOD_S, self._check)
        self.get_logger().info(f'recording into {self._root.absolute()}')

    def start(self, sent_ns: int | None = None) -> str:
        """Begin an episode; :raises RecordingRefused: naming what is missing."""
        if self._bag is not None:
            raise RecordingRefused(f'{self._bag.path.name} is being recorded; stop it first')
        settings = self._table.read()
        instruction = settings.instruction or self._instruction
        found = self._missing(settings, instruction)
        if found:
            raise RecordingRefused('; '.join(found))
        info = self._info(settings)
        self._begin(info, instruction, sent_ns or time.time_ns(), settings)
        self.get_logger().info(f'recording {info.name}: {instruction!r}')
        return info.name

    def stop(self) -> Ended:
        """Complete the episode's bag; :raises RecordingRefused: where there is none."""
        recorded, self._bag, self._outcome_ns = self._current(), None, None
        found = self._problems(recorded, is_over=True)
        names = bag.TopicNames()
        if self._success is not None:
            self._say(recorded, names.success, bag.BOOL, self._success)
        if found:
            self._say(recorded, names.problems, bag.STRING, '\n'.join(found))
        try:
            path = recorded.close()
        except OSError as error:
            self._last = Ended(recorded.path.name, (str(error),))
            raise RecordingRefused('; '.join([str(error), *found, self._what_is_left()])
                                   ) from error
        notes = [f'not recorded: {note}' for note in self._inputs.state_problems()]
        ended = Ended('; '.join([f'{path}: {self._summary(recorded)}', *notes]), tuple(found))
        self._last = ended
        if found:  # two lines: rclpy binds a line of code to one severity
            self.get_logger().error(str(ended))
        else:
            self.get_logger().info(str(ended))
        return ended

    def discard(self) -> str:
        """Delete the episode's bag; :raises RecordingRefused: where there is none."""
        recorded, self._bag, self._outcome_ns = self._current(), None, None
        try:
            recorded.discard()
        except OSError as error:
            raise RecordingRefused(f'{recorded.path.name} cannot be deleted: {error}') from error
        self._last = None
        self.get_logger().info(f'discarded {recorded.path.name}')
        return recorded.path.name

    def leave(self) -> None:
        """Complete the episode that is being recorded, without a label if nobody said one."""
        if self._bag is not None:
            self._try(self.stop)

    def _missing(self, settings: RecorderSettings, instruction: str) -> list[str]:
        """Return what keeps an episode from beginning."""
        found = []
        if not instruction.strip():
            wiring = self._inputs.wiring_of_words()
            found.append('there is no instruction; publish one, or set the parameter instruction'
                         + (f' ({wiring})' if wiring else ''))
        self._inputs.follow_publishers()
        found += self._inputs.wiring_problems()
        found += clock_problems(self._inputs.came_lately())
        if settings.automatic and 'is published as' in self._inputs.wiring_of_outcome():
            found.append(f'no outcome would end it: {self._inputs.wiring_of_outcome()}')
        return found

    def _problems(self, recorded: BackgroundBag, is_over: bool) -> list[str]:
        """Return what the episode promised and has not, so far or at its end."""
        settings = self._table.read()
        expected = Expected(
            settings.max_camera_gap_s, settings.max_action_gap_s,
            settings.control_period_s if settings.arm == 'displacement'
            and (self._body is None or not self._body.sources) else None)
        found = problems(self._inputs.came(recorded.dropped), expected, self._began_ns,
                         time.time_ns(), is_over)
        return [*found, *([recorded.problem] if recorded.problem else [])]

    def _say(self, recorded: BackgroundBag, topic: str, msgtype: str, data: object) -> None:
        """Append one latched message, whatever the state of the disk."""
        recorded.add_topic('/' + topic, msgtype, latched=True)
        recorded.put(Message('/' + topic, time.time_ns(),
                             recorded.serialise(msgtype, data=data)), always=True)

    def _left_over(self) -> list[Path]:
        try:
            return set_aside_unfinished(self._root)
        except OSError as error:
            self.get_logger().error(f'{self._root}: what an earlier recorder left cannot be set '
                                    f'aside: {error}')
            return []

    def _what_is_left(self) -> str:
        moved = self._left_over()
        return ('what is left is in ' + ', '.join(map(str, moved)) if moved
                else 'nothing of it can be found')

    def _info(self, settings: RecorderSettings) -> bag.EpisodeInfo:
        stamps = settings.stamps
        if stamps == 'auto':
            stamps = 'now' if settings.actor == 'operator' else 'observation'
        if settings.actor == 'policy' and not self._model:
            raise RecordingRefused(
                f'/diagnostics has not said the checkpoint of the node {settings.policy!r} yet; '
                'is it configured?')
        now = datetime.datetime.now(datetime.UTC)
        name = f'{settings.prefix}_{now:%Y%m%d_%H%M%S_%f}'[:-3]
        return bag.EpisodeInfo(
            name, settings.actor, settings.frame, settings.rotation,  # type: ignore[arg-type]
            settings.control_period_s, self._model if settings.actor == 'policy' else None,
            settings.source, settings.arm, stamps,  # type: ignore[arg-type]
            settings.gripper_closed, settings.gripper_open,
            None if self._body is None else self._body.recorded())

    def _begin(self, info: bag.EpisodeInfo, instruction: str, begin_ns: int,
               settings: RecorderSettings) -> None:
        try:
            opened = BackgroundBag(self._root / info.name, round(settings.queue_mb * _MB),
                                   round(settings.min_free_mb * _MB))
        except OSError as error:
            raise RecordingRefused(str(error)) from error
        for stream in self._inputs.streams:
            opened.add_topic(stream.in_bag, stream.msgtype)
        names = bag.TopicNames()
        for topic, text in ((names.info, bag.write_info(info)), (names.instruction, instruction)):
            opened.add_topic('/' + topic, bag.STRING, latched=True)
            opened.put(Message('/' + topic, begin_ns, opened.serialise(bag.STRING, data=text)))
        if opened.problem is not None:
            with contextlib.suppress(OSError):
                opened.discard()
            raise RecordingRefused(opened.problem)
        self._inputs.begin()
        self._success, self._began_ns = None, begin_ns
        self._bag = opened

    def _current(self) -> BackgroundBag:
        if self._bag is None:
            last = f'; the last one ended: {self._last}' if self._last is not None else ''
            raise RecordingRefused(f'no episode is being recorded{last}')
        return self._bag

    def _take(self, message: Message) -> None:
        if self._bag is not None:
            self._bag.put(message)
            if self._outcome_ns is not None and message.log_ns <= self._outcome_ns:
                self._is_drained = False

    def _take_instruction(self, words: str, sent_ns: int) -> None:
        changed, self._instruction = words != self._instruction, words
        if self._table.read().automatic:
            if self._bag is not None:
                self._try(self.stop)
            if words.strip():
                self._try(lambda: self.start(sent_ns))
        elif self._bag is not None and changed:
            self.get_logger().warning('the instruction changed: training will see two episodes')
            self._bag.put(Message('/' + bag.TopicNames().instruction, sent_ns,
                                  self._bag.serialise(bag.STRING, data=words)))

    def _take_success(self, success: bool, sent_ns: int) -> None:
        if self._bag is None:
            return
        self._success = success
        if self._table.read().automatic:  # what was sent before may still be on its way
            self._outcome_ns, self._is_drained = sent_ns, False
            self._outcome_heard_s = time.monotonic()

    def _take_diagnostics(self, message: DiagnosticArray) -> None:
        wanted = f'{self._table.read().policy}: state'
        for status in message.status:
            if status.name.strip('/').endswith(wanted):
                values = {pair.key: pair.value for pair in status.values}
                self._model = values.get(FINGERPRINT, self._model)

    def _serve_label(self, request: SetBool.Request,
                     response: SetBool.Response) -> SetBool.Response:
        response.success = self._bag is not None
        if self._bag is not None:
            self._success = request.data
            response.message = (f'{self._bag.path.name}: '
                                f'{"success" if request.data else "failure"}')
        else:
            response.message = 'no episode is being recorded; label it before ~/stop'
        return response

    def _check(self) -> None:
        """End what has to end, follow the publishers, and report."""
        found = [] if self._bag is None else self._problems(self._bag, is_over=False)
        if self._bag is None or found:  # a driver that was started again may offer another QoS
            self._inputs.follow_publishers()
        if self._bag is not None and self._bag.problem is not None:
            self.get_logger().error(self._bag.problem)
            self._try(self.stop)
        elif self._outcome_ns is not None:
            # Twice, because what waits on a busy machine is taken between two checks.
            if self._is_drained or time.monotonic() - self._outcome_heard_s > _LONGEST_DRAIN_S:
                self._try(self.stop)
            self._is_drained = True
        self._report(found)

    def _report(self, found: Sequence[str]) -> None:
        name = f'{self.get_name()}: state'
        now_ns = self.get_clock().now().nanoseconds
        if self._bag is None:
            bad = self._last is not None and self._last.problems
            status = diagnostics.status(
                name, diagnostics.WARN if bad else diagnostics.OK,
                f'idle; the last episode: {self._last}' if bad else 'idle', {})
        else:
            dropped = sum(self._bag.dropped.values()) + sum(self._inputs.lost.values())
            status = diagnostics.status(
                name, diagnostics.ERROR if dropped or found else diagnostics.OK,
                '; '.join([f'recording {self._bag.path.name}', *found]),
                {'waiting for the disk [MB]': f'{self._bag.waiting_bytes / _MB:.1f}',
                 'lost': dropped, **self._bag.written})
        self._status.publish(diagnostics.array(now_ns, [status]))

    def _summary(self, recorded: BackgroundBag) -> str:
        counts = ', '.join(f'{count} {topic}' for topic, count in recorded.written.items())
        lost = self._inputs.lost + recorded.dropped
        label = {True: 'success', False: 'failure', None: 'no label'}[self._success]
        text = f'{counts}; {label}; {sum(lost.values())} lost'
        return text + (f': {dict(lost)}' if lost else '')

    def _try(self, work: Callable[[], Any]) -> None:
        try:
            work()
        except RecordingRefused as error:
            self.get_logger().error(str(error))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until it is interrupted, with room for whole images in shared memory."""
    status = answer('recorder_node', __doc__.strip(), RecorderSettings, arguments)
    if status is not None:
        return status
    os.environ.update(nodes.environment())
    return run(RecorderNode, arguments, name='recorder')  # type: ignore[arg-type]


if __name__ == '__main__':
    sys.exit(main())
