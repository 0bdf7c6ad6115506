"""
One active stretch of the node: ticks in, exactly one command or hold out for each observation.

Ticks, resets and instructions come on the executor's thread, decisions on the worker's. Whatever
is published, and whatever both threads touch, is guarded by the worker's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import time
import traceback

import numpy as np
from rclpy.lifecycle import LifecycleNode
from ros2_lstm_policy.manifest import Manifest
from ros2_lstm_policy.resample import Missing
from ros2_lstm_policy.ros.diagnostics import Holds, Latencies, LatestLine, Rate
from ros2_lstm_policy.ros.lifecycle import guarded
from ros2_lstm_policy.ros.policy.exclusive import Exclusive
from ros2_lstm_policy.ros.policy.inputs import Inputs
from ros2_lstm_policy.ros.policy.outputs import Outputs
from ros2_lstm_policy.ros.policy.parameters import Settings
from ros2_lstm_policy.ros.policy.takeover import Takeover
from ros2_lstm_policy.runtime.cadence import Cadence
from ros2_lstm_policy.runtime.frozen import FROZEN
from ros2_lstm_policy.runtime.safety import (blend_in, Grippers, Guard, Limits,
                                             MAX_INSTRUCTION_CHARACTERS, motion)
from ros2_lstm_policy.runtime.worker import Job, Outcome, PolicyWorker
from ros2_lstm_policy.types import Actor, ActorFault, Decision, Observation, Reason

_STOP_TIMEOUT_S = 5.0
_WORDS_PERIOD_S = 1.0  # between two lines of the log about instructions
_NS = 1_000_000_000
_WORKER_DIED = Reason('worker_died', "the policy's thread has ended: deactivate and activate the "
                      'node; the log says why')


class Controller:
    """
    Acts from activation to deactivation.

    :param limits: what the robot may be asked to do.
    :param instruction: what the robot is told to do until another instruction comes.
    :param first_episode: the number that its episodes begin with.
    :param operators: the topic on which an operator commands each group.
    :param link: says why a policy on another machine cannot be asked; None: it can.
    :param interlock: says why a person does not let the robot move.
    """

    def __init__(self, node: LifecycleNode, settings: Settings, manifest: Manifest,
                 limits: Limits, actor: Actor, inputs: Inputs, outputs: Outputs, holds: Holds,
                 instruction: str, first_episode: int,
                 link: Callable[[], Reason | None] = lambda: None,
                 interlock: Callable[[], tuple[Reason, ...]] = tuple,
                 operators: Mapping[str, str] | None = None) -> None:
        """Prepare; :meth:`start` acts."""
        self._node, self._settings = node, settings
        self.limits = limits
        self._inputs, self._outputs, self._holds = inputs, outputs, holds
        self._gripper = Grippers(manifest.binary, settings.gripper_hysteresis,
                                 settings.gripper_min_hold_s)
        self._period_s = manifest.control_period_s
        self._guard = Guard()
        self._words_told = LatestLine(node.get_logger(), _WORDS_PERIOD_S)
        self._exclusive = Exclusive(node, outputs.topics, inputs.topics, inputs.state_topics,
                                    operators)
        self.takeover = Takeover(settings, inputs, outputs, holds, self._guard, self._now_ns)
        self._link, self._is_cut, self._interlock = link, False, interlock
        self.worker = PolicyWorker(actor, self._deliver, first_episode)
        self.latencies, self.ticks, self.commands = Latencies(), Rate(), Rate()
        self._instruction = instruction.strip()
        # Frames may come faster than the policy's period; its deltas cover one period each.
        self._cadence = Cadence(round(self._period_s * _NS))
        self._offered_ns: int | None = None
        self._last_submitted: int | None = None
        self.restarts, self.slowed, self.smoothed, self.repeats = 0, 0, 0, 0
        self._ticked_ns = time.monotonic_ns()
        self._reported = (0, 0)
        self._seen_ticks = -1
        self._begun_ns = 0

    @property
    def instruction(self) -> str:
        """Return what the robot is told to do now."""
        return self._instruction

    def start(self) -> None:
        """Begin the first episode, with what the cameras show already."""
        self._begun_ns = self._now_ns()
        self._outputs.forget_places()
        self.worker.start()
        self.frame_arrived()

    def stop(self) -> None:
        """
        End: nothing old can be published any more, the robot holds, the thread leaves.

        :raises RuntimeError: where the policy hangs; it must not be used again.
        """
        self._words_told.catch_up()
        try:
            self.reset_episode('deactivated', 'the node is being deactivated')
            self._outputs.end_ramps()
        finally:
            has_left = self.worker.stop(_STOP_TIMEOUT_S)
        if not has_left:
            raise RuntimeError(f'the policy did not return within {_STOP_TIMEOUT_S} s; '
                               'configure again to load another')

    def frame_arrived(self) -> None:
        """Tick where ticks come from frames and all cameras have shown one moment that is due."""
        if self._settings.trigger != 'frames':
            return
        stamp_ns = self._inputs.sampler.complete_set()
        if stamp_ns is None or stamp_ns == self._offered_ns:
            return  # this frame completed nothing new: an episode begins with what comes after it
        self._offered_ns = stamp_ns
        if self._cadence.takes(stamp_ns):
            self.tick()

    def watch(self) -> None:
        """Hold where frames bring no ticks any more; called once a period by a clock that runs."""
        silent_s = (time.monotonic_ns() - self._ticked_ns) / _NS
        if silent_s < self._settings.max_image_age_s:
            return
        now_ns = self._now_ns()
        reasons = self._inputs.missing()
        with self.worker.lock:
            self._give_up_what_is_overdue(now_ns)
            if self._operator_acts():
                self.takeover.answer(now_ns, self.limits, self._doubts())
            elif reasons:
                self._hold(reasons, now_ns)

    def tick(self, late_ns: int = 0) -> None:
        """
        Take one observation, or hold.

        :param late_ns: how late this tick is by its timer.
        """
        due_ns, now_ns = time.monotonic_ns() - late_ns, self._now_ns()
        self.ticks.add()
        self._ticked_ns = time.monotonic_ns()
        sampled = self._inputs.sample(now_ns)
        with self.worker.lock:
            self._give_up_what_is_overdue(now_ns)
            doubts = self._doubts()
            if self._operator_acts():
                self._answer_for_operator(sampled, doubts, due_ns, now_ns)
                return
            if not self.worker.is_alive:
                doubts = (*doubts, _WORKER_DIED)
            if (fault := self._link()) is not None:
                doubts = (*doubts, fault)
            if doubts:
                stamp_ns = now_ns if isinstance(sampled, Missing) else sampled.stamp_ns
                self._drop_answers(doubts, stamp_ns)
                self._hold(doubts, stamp_ns)
                return
            if isinstance(sampled, Missing):
                if any(reason.code == FROZEN for reason in sampled.reasons):
                    self._drop_answers(sampled.reasons, now_ns)
                last_ns = self._cadence.last_ns
                stamp_ns = now_ns if last_ns is None else last_ns
                self._hold(self._inputs.explain(sampled.reasons), stamp_ns)
                return
            refusal = self._check_instruction()
            if refusal is not None:
                self._hold([refusal], sampled.stamp_ns)
                return
            if sampled.stamp_ns == self._last_submitted:
                self.repeats += 1  # answered already; the history would take it twice
                return
            self._submit(sampled, due_ns)

    def watch_link(self) -> None:
        """Hold as soon as the policy's machine cannot be asked any more, between two ticks too."""
        fault = self._link()
        was_cut, self._is_cut = self._is_cut, fault is not None
        if fault is None or was_cut:
            return  # while it stays cut, the ticks say so
        now_ns = self._now_ns()
        with self.worker.lock:
            self._drop_answers([fault], now_ns)
            if not self.takeover.is_on:
                self._hold([fault], now_ns)

    def take_over(self, group: str, given: np.ndarray | Reason) -> None:
        """
        Hear an operator, who has the robot from the first message on.

        What the policy is working on is answered with the operator's command.

        :param given: the group's values, or why they mean nothing.
        """
        with self.worker.lock:
            if self._outputs.is_shadow:
                return  # the robot is another's, and what is shown is the policy's
            doubts = self._doubts()
            if self.takeover.take(group, given):
                self._node.get_logger().warning('an operator has taken over; the policy commands '
                                                'nothing until it gets the robot back')
                for job in self.worker.drop():
                    self.takeover.answer(job.observation.stamp_ns, self.limits, doubts)
            self.takeover.steer(self.limits, doubts)

    def release(self, why: str) -> str:
        """Give the robot back to the policy; :return: what became of its memory, or nothing."""
        with self.worker.lock:
            if not self.takeover.is_on:
                return ''
            self._gripper.know(self.takeover.given, self._now_ns() / _NS)
            self.takeover.release()
            self._outputs.steer({})
            self._guard.reset()
            self._outputs.forget_places()
            if self._settings.operator_memory == 'restart':
                self.worker.forget()
                self._last_submitted = None
                self.restarts += 1
            self._node.get_logger().info(f'the policy has the robot again ({why}); its memory '
                                         f'{self.takeover.memory}')
            return self.takeover.memory

    def recent_repeats(self) -> tuple[int, int]:
        """Return the ticks since the last call that found no new observation, and all ticks."""
        before, self._reported = self._reported, (self.repeats, self.ticks.count)
        return self.repeats - before[0], self.ticks.count - before[1]

    def reset_episode(self, code: str, text: str) -> int:
        """
        Begin the next episode: nothing old is published from here on, and the robot holds.

        :return: its number.
        """
        with self.worker.lock:
            dropped = self.worker.reset()
            self._begun_ns = self._now_ns()
            # held first: the robot stops, whatever may go wrong with the rest
            open_ns = [job.observation.stamp_ns for job in dropped if self._awaits_answer(job)]
            for stamp_ns in open_ns or [self._begun_ns]:
                self._hold([Reason(code, text)], stamp_ns)
            self._inputs.reset()
            self._gripper.reset()
            self.takeover.answered_ns = None
            self._last_submitted = None
            self._cadence.reset()
            return self.worker.episode

    def set_instruction(self, text: str) -> None:
        """Take an instruction; another one than before begins an episode, an empty one stops."""
        text = text.strip()
        if text == self._instruction:
            return
        self._instruction = text
        if not text or self._settings.new_instruction_resets:
            episode = self.reset_episode('episode_reset', 'the instruction changed')
            self._words_told.say(f'episode {episode}: {text[:80]!r}')

    def clock_jumped_back(self) -> None:
        """Forget what was seen in a time that has not come yet."""
        self._inputs.sampler.flush()
        self.reset_episode('clock', 'the clock jumped back; everything begins afresh')

    def obey(self, limits: Limits, is_shadow: bool) -> None:
        """Take what was changed while acting; the robot holds when it enters shadow."""
        with self.worker.lock:
            self.limits = limits
            if is_shadow == self._outputs.is_shadow:
                return
            self._stay(self._now_ns())
            self._outputs.end_ramps()
            self._outputs.set_shadow(is_shadow)
            self._begun_ns = self._now_ns()

    def hold_after(self, error: Exception) -> None:
        """Hold because a callback failed: what it should have done was not done."""
        with self.worker.lock:
            self._hold([Reason('node_failed', f'the node failed: {type(error).__name__}: {error}; '
                               'the log says where')], self._now_ns())

    def hold_at_once(self, reasons: Sequence[Reason]) -> None:
        """Hold between two ticks; nothing that is being computed moves the robot any more."""
        with self.worker.lock:
            now_ns = self._now_ns()
            self._hold(reasons, now_ns)
            self._drop_answers(reasons, now_ns)
            self.worker.forget()  # whoever stopped it may move it meanwhile
            self.restarts += 1

    def repeat_for_servo(self) -> None:
        """Publish the velocity that the last command means now."""
        with self.worker.lock:
            if self.takeover.is_on:
                self.takeover.repeat()
            else:
                self._outputs.servo()

    def look_around(self) -> None:
        """Hold, and say why, where there are no ticks; called once a second, under the lock."""
        self._words_told.catch_up()
        if self.ticks.count != self._seen_ticks:
            self._seen_ticks = self.ticks.count
            return
        if self.takeover.is_on:
            return  # without ticks nothing moves but what the operator steers
        reasons = self._inputs.missing()
        if not reasons and self._settings.trigger == 'timer':
            reasons = (self._why_no_tick(),)
            self.worker.give_up()  # by this clock its answer would never be too old
        if reasons:
            self._hold(reasons, self._now_ns())

    def _why_no_tick(self) -> Reason:
        if self._node.get_parameter('use_sim_time').value:
            return Reason('no_tick', 'the clock stands still: use_sim_time is set and /clock says '
                          f'{self._now_ns() / _NS:.3f} s')
        return Reason('no_tick', 'no tick has come for a second: the node is kept busy, or the '
                      'system was stopped')

    def _submit(self, observation: Observation, due_ns: int) -> None:
        self._forget_after_a_gap(observation.stamp_ns)
        submitted_ns = time.monotonic_ns()
        spent_ns, age_ns = submitted_ns - due_ns, self._now_ns() - observation.stamp_ns
        arrival = self._inputs.arrival(observation)
        if arrival is not None:
            self._note({'camera': arrival.transport_ns, 'decode': arrival.decode_ns,
                        'wait': due_ns - arrival.received_ns, 'tick': spent_ns})
            spent_ns += arrival.decode_ns
            age_ns = arrival.transport_ns + submitted_ns - arrival.received_ns
        replaced = self.worker.submit(observation, self._instruction, spent_ns, age_ns)
        if replaced is not None and self._awaits_answer(replaced):
            self._hold([Reason('superseded', 'the policy is slower than its control period: a '
                               'newer observation came before this one was looked at')],
                       replaced.observation.stamp_ns)

    def _forget_after_a_gap(self, stamp_ns: int) -> None:
        """Begin the history afresh where it would join moments that training never joined."""
        last_ns, self._last_submitted = self._last_submitted, stamp_ns
        if last_ns is not None and stamp_ns - last_ns > self._settings.max_gap_s * _NS:
            self.worker.forget()
            self.restarts += 1

    def _drop_answers(self, reasons: Sequence[Reason], held_ns: int) -> None:
        """
        Hold instead of answering what is being worked on: the doubt is about that, too.

        :param held_ns: a stamp that is answered with a hold already.
        """
        for job in self.worker.drop():
            if job.observation.stamp_ns != held_ns and self._awaits_answer(job):
                self._hold(reasons, job.observation.stamp_ns)

    def _give_up_what_is_overdue(self, now_ns: int) -> None:
        job = self.worker.current
        if job is None:
            return
        age_s = (now_ns - job.observation.stamp_ns) / _NS
        if age_s > self.limits.deadline_s:
            self.worker.give_up()
            if not self._awaits_answer(job):
                return
            self._hold([Reason('deadline', f'the policy has not answered an observation of '
                               f'{age_s:.3f} s ago, at most {self.limits.deadline_s:.3f} s is '
                               'allowed (deadline_s)')], job.observation.stamp_ns)

    def _doubts(self) -> tuple[Reason, ...]:
        return (*self._interlock(), *self._exclusive.doubts())

    def _operator_acts(self) -> bool:
        """Return whether an operator has the robot, who loses it by a long silence."""
        if self.takeover.is_over:
            self.release('operator_release_s of silence')
        return self.takeover.is_on

    def _answer_for_operator(self, sampled: Observation | Missing, doubts: Sequence[Reason],
                             due_ns: int, now_ns: int) -> None:
        """Answer an observation for the operator; the policy sees it, where it follows along."""
        if isinstance(sampled, Missing):
            self.takeover.answer(now_ns, self.limits, doubts)
            return
        if sampled.stamp_ns == self.takeover.answered_ns:
            self.repeats += 1
            return
        self.takeover.answer(sampled.stamp_ns, self.limits, doubts)
        if self._settings.operator_memory == 'follow' and not self._check_instruction():
            self._submit(sampled, due_ns)

    def _awaits_answer(self, job: Job) -> bool:
        """Return whether an observation was not answered for an operator."""
        answered_ns = self.takeover.answered_ns
        return answered_ns is None or job.observation.stamp_ns > answered_ns

    def _check_instruction(self) -> Reason | None:
        if not self._instruction:
            return Reason('no_instruction', 'there is no instruction; publish one')
        if len(self._instruction) > MAX_INSTRUCTION_CHARACTERS:
            return Reason('long_instruction', f'the instruction has {len(self._instruction)} '
                          f'characters, at most {MAX_INSTRUCTION_CHARACTERS} are allowed')
        return None

    def _deliver(self, outcome: Outcome) -> None:
        """Answer one observation; on the worker's thread, under its lock."""
        if not self._awaits_answer(outcome.job):
            return  # it was computed for the memory alone
        try:
            if isinstance(outcome.result, BaseException):
                self._hold([self._failure(outcome.result)], outcome.job.observation.stamp_ns)
            else:
                self._act(outcome, outcome.result)
        except Exception as error:  # the thread's edge: the node lives, the robot holds
            self._node.get_logger().error(traceback.format_exc(), throttle_duration_sec=1.0)
            guarded(self._node, self.hold_after)(error)

    def _act(self, outcome: Outcome, decision: Decision) -> None:
        observation, now_ns = outcome.job.observation, self._now_ns()
        action, present = decision.action, self._inputs.presents(now_ns)
        share = self.takeover.share() * blend_in((now_ns - self._begun_ns) / _NS,
                                                 self._settings.blend_in_s)
        checked = self._guard.passed(action, (now_ns - observation.stamp_ns) / _NS, self.limits,
                                     present, share)
        if isinstance(checked, Reason):
            if checked.code == 'not_finite':
                self.worker.forget()
            self._hold(self._inputs.explain([checked]), observation.stamp_ns)
            return
        values = {**checked.groups,
                  **self._gripper.update(action, observation.stamp_ns / _NS)}
        self._outputs.command(observation.stamp_ns, values)
        self._guard.note(action, values, self.limits, present)
        if not self._outputs.is_shadow:  # whoever moves the robot there, it is not this node
            self._inputs.frozen.move(motion(values, self.limits, present), self._period_s)
        self.commands.add()
        self.slowed += checked.slowed < 1
        self.smoothed += checked.is_smoothed
        self._holds.end()
        self._note_latencies(outcome, decision)
        self._outputs.intention(observation.stamp_ns, decision, present)

    def _hold(self, reasons: Sequence[Reason], stamp_ns: int) -> None:
        self._holds.begin([*reasons, *self._stay(stamp_ns)])

    def _stay(self, stamp_ns: int) -> list[Reason]:
        """Tell every group to stay; return why some were sent nothing."""
        self._guard.reset()
        return self._outputs.hold(stamp_ns, lambda: self._inputs.presents(self._now_ns()))

    def _failure(self, error: BaseException) -> Reason:
        """Say what failed; what this package did not raise itself is logged with its traceback."""
        if isinstance(error, ActorFault):
            return error.reason
        if not type(error).__module__.startswith(__package__.partition('.')[0]):
            self._node.get_logger().error(''.join(traceback.format_exception(error)),
                                          throttle_duration_sec=10.0)
        return Reason('policy_failed', f'the policy failed: {type(error).__name__}: {error}')

    def _note_latencies(self, outcome: Outcome, decision: Decision) -> None:
        job, now_ns = outcome.job, time.monotonic_ns()
        queue_ns = outcome.started_ns - job.submitted_ns
        publish_ns = now_ns - outcome.finished_ns
        self._note({'queue': queue_ns, 'policy': outcome.finished_ns - outcome.started_ns,
                    'publish': publish_ns, 'overhead': job.spent_ns + queue_ns + publish_ns,
                    'total': job.age_ns + now_ns - job.submitted_ns})
        for stage, duration_s in decision.stage_s.items():
            self.latencies.add(f'policy {stage}', duration_s)

    def _note(self, stages_ns: Mapping[str, int]) -> None:
        for stage, duration_ns in stages_ns.items():
            self.latencies.add(stage, duration_ns / _NS)

    def _now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds
