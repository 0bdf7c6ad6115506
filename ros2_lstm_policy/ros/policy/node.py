"""The policy node: cameras, states and an instruction in, commands of every group out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
import gc
import sys
import traceback
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.timer import Timer
from ros2_lstm_policy.manifest import Manifest
from ros2_lstm_policy.ros import diagnostics
from ros2_lstm_policy.ros.lifecycle import guarded, GuardedLifecycleNode, run
from ros2_lstm_policy.ros.node_arguments import answer
from ros2_lstm_policy.ros.policy import body, loading, status
from ros2_lstm_policy.ros.policy.controller import Controller
from ros2_lstm_policy.ros.policy.encoders import Target
from ros2_lstm_policy.ros.policy.exclusive import Exclusive
from ros2_lstm_policy.ros.policy.inputs import Inputs
from ros2_lstm_policy.ros.policy.interlock import Interlock
from ros2_lstm_policy.ros.policy.loading import Loaded
from ros2_lstm_policy.ros.policy.operator_input import OperatorInput
from ros2_lstm_policy.ros.policy.outputs import Outputs
from ros2_lstm_policy.ros.policy.parameters import Parameters, Settings
from ros2_lstm_policy.types import Reason
from std_srvs.srv import Trigger


class PolicyNode(GuardedLifecycleNode):
    """See docs/node.md for its face."""

    def __init__(self, **options: Any) -> None:
        """Declare parameters; everything else waits for configure."""
        super().__init__('policy', **options)
        self.parameters = Parameters(self)
        for line in (*self.parameters.unknown, *self.parameters.problems.values()):
            self.get_logger().warning(line)
        self._settings = Settings()
        self._manifest: Manifest | None = None
        self._targets: list[Target] = []
        self._loaded: Loaded | None = None
        self._inputs: Inputs | None = None
        self._outputs: Outputs | None = None
        self._operator: OperatorInput | None = None
        self._controller: Controller | None = None
        self._timers_of_activity: list[Timer] = []
        self._tick_timer: Timer | None = None
        self._instruction, self._next_episode = '', 0
        self._holds = diagnostics.Holds(self.get_logger())
        self._clock_that_runs = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics',
                                                  QoSProfile(depth=10))
        self.create_timer(1.0, guarded(self, self._publish_diagnostics),
                          clock=self._clock_that_runs)
        self.create_service(Trigger, '~/reset_episode', self._reset_episode)
        self._interlock = Interlock(self, self._holding(self._hold_at_once))
        self.create_service(Trigger, '~/release', self._release)
        self._jumps = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1),
                          on_clock_change=False),
            post_callback=self._holding(self._clock_jumped))
        self.add_post_set_parameters_callback(guarded(self, self._take_live_parameters))

    def configure(self) -> None:
        """Load the policy, hold it against the parameters, warm it up, subscribe."""
        settings = self._settings = self.parameters.read()
        loaded = self._loaded = loading.load(settings)
        manifest = loaded.manifest
        self._targets = body.targets(manifest, settings, self.parameters)
        self._manifest = manifest
        self._instruction = settings.instruction
        self._outputs = Outputs(self, settings, self._targets)
        self._inputs = Inputs(self, settings, manifest.cameras,
                              self._holding(self._frame_arrived),
                              self._holding(self._take_instruction),
                              body.inputs(manifest, self._targets, self.parameters))
        self._interlock.listen(settings.dead_man_timeout_s)
        self._operator = OperatorInput(self, self._targets, self._holding(self._take_over))
        loaded.actor.warm_up()
        for line in (*loading.unused(settings), *self.parameters.unused_overrides(),
                     *self.parameters.unused_names('streams', self._inputs.states.heard),
                     *self.parameters.unused_names('groups', [t.group.name
                                                              for t in self._targets])):
            self.get_logger().warning(line)
        self.parameters.lock(True)
        self.get_logger().info(f'{settings.server or settings.checkpoint} '
                               f'{loaded.fingerprint[:12]}: '
                               f'{1 / manifest.control_period_s:g} Hz, '
                               f'{body.described(manifest)}; '
                               f'cameras {", ".join(c.name for c in manifest.cameras)}')

    def activate(self) -> None:
        """Begin to act."""
        settings, manifest, loaded = self._settings, self._manifest, self._loaded
        assert manifest and loaded and self._inputs and self._outputs
        gc.collect()
        gc.freeze()  # what is loaded stays: no collection walks over it between two ticks
        self._controller = Controller(
            self, settings, manifest, body.limits(settings, self._targets), loaded.actor,
            self._inputs, self._outputs, self._holds, self._instruction, self._next_episode,
            self._link_fault, self._interlock.reasons,
            self._operator.topics if self._operator else {})
        self._controller.start()
        words = self._instruction.strip()[:80]
        self.get_logger().info(f'active, and told {words!r}: it moves at once' if words else
                               'active; it waits for an instruction')
        if settings.trigger == 'timer':
            # A timer of the system's clock stands still when that clock is set back.
            clock = self.get_clock() if self.get_parameter('use_sim_time').value else \
                self._clock_that_runs
            self._tick_timer = self._start_timer(manifest.control_period_s, self._tick, clock)
        else:
            self._start_timer(manifest.control_period_s, self._controller.watch,
                              self._clock_that_runs)
        if loaded.link is not None:
            self._start_timer(loaded.link.beat_s, self._controller.watch_link,
                              self._clock_that_runs)
        if settings.servo_rate_hz > 0:
            self._start_timer(1 / settings.servo_rate_hz, self._servo, self._clock_that_runs)

    def deactivate(self) -> None:
        """Stop: nothing old goes out any more, the robot holds, the worker leaves."""
        for timer in self._timers_of_activity:
            self.destroy_timer(timer)
        self._timers_of_activity.clear()
        controller, self._controller = self._controller, None
        if controller is not None:
            try:
                controller.stop()
            finally:
                self._holds.clear()
                self._instruction = ''  # nobody wants it done at some later activation
                self._next_episode = controller.worker.episode

    def cleanup(self) -> None:
        """Give everything back."""
        self.deactivate()
        self._interlock.leave()
        if self._inputs is not None:
            self._inputs.close()
        if self._outputs is not None:
            self._outputs.close()
        if self._loaded is not None and self._loaded.link is not None:
            self._loaded.link.close()
        if self._operator is not None:
            self._operator.close()
        self._operator = None
        self._inputs = self._outputs = self._loaded = self._manifest = None
        self.parameters.lock(False)
        gc.unfreeze()

    def _start_timer(self, period_s: float, callback: Callable[[], None], clock: Clock) -> Timer:
        timer = self.create_timer(period_s, self._holding(callback), clock=clock)
        self._timers_of_activity.append(timer)
        return timer

    def _holding(self, callback: Callable[..., None]) -> Callable[..., None]:
        """Return a callback after whose failure the robot holds."""
        def hold(error: Exception) -> None:
            if self._controller is not None:
                self._controller.hold_after(error)
        return guarded(self, callback, hold)

    def _tick(self) -> None:
        assert self._controller is not None
        assert self._tick_timer is not None
        # The next call is one period after this one was due.
        late_ns = self._tick_timer.timer_period_ns - self._tick_timer.time_until_next_call()
        self._controller.tick(max(0, late_ns))

    def _servo(self) -> None:
        assert self._controller is not None
        self._controller.repeat_for_servo()

    def _frame_arrived(self) -> None:
        if self._controller is not None:
            self._controller.frame_arrived()

    def _hold_at_once(self, reasons: tuple[Reason, ...]) -> None:
        if self._controller is not None:
            self._controller.hold_at_once(reasons)

    def _take_instruction(self, text: str) -> None:
        self._instruction = text
        if self._controller is not None:
            self._controller.set_instruction(text)

    def _take_over(self, group: str, given: np.ndarray | Reason) -> None:
        if self._controller is not None:
            self._controller.take_over(group, given)

    def _release(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        memory = '' if self._controller is None else self._controller.release('~/release')
        response.success = bool(memory)
        response.message = (f'the policy has the robot; its memory {memory}' if memory else
                            'no operator has the robot')
        return response

    def _reset_episode(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._controller is None:
            response.message = f'the node is {self.state_label}: there is no episode to reset'
            return response
        try:
            episode = self._controller.reset_episode('episode_reset', 'the episode was reset')
        except Exception as error:  # a callback's edge: the caller is told, the node lives
            self.get_logger().error(traceback.format_exc())
            response.message = f'{type(error).__name__}: {error}'
            return response
        response.success, response.message = True, f'episode {episode}'
        return response

    def _clock_jumped(self, _: TimeJump) -> None:
        if self._controller is not None:
            self._controller.clock_jumped_back()
        elif self._inputs is not None:
            self._inputs.sampler.flush()

    def _take_live_parameters(self, parameters: Sequence[Parameter]) -> None:
        live = {f.name for f in fields(Settings) if f.metadata['live']}
        self._settings = replace(self._settings, **{
            p.name: p.value for p in parameters if p.name in live})
        if self._controller is not None and self._manifest is not None:
            self._controller.obey(body.limits(self._settings, self._targets),
                                  self._settings.shadow)
        elif self._outputs is not None:
            self._outputs.set_shadow(self._settings.shadow)

    def _link_fault(self) -> Reason | None:
        link = None if self._loaded is None else self._loaded.link
        return None if link is None else link.fault()

    def _doubts(self) -> tuple[Reason, ...]:
        fault = self._link_fault()
        return (*Exclusive(self, self._outputs.topics if self._outputs else (),
                           self._inputs.topics if self._inputs else {},
                           self._inputs.state_topics if self._inputs else {},
                           self._operator.topics if self._operator else {}).doubts(),
                *([] if fault is None else [fault]))

    def _publish_diagnostics(self) -> None:
        name, doubts, found = self.get_fully_qualified_name(), self._doubts(), []
        found.append(status.state(name, self.state_label, self.last_error, doubts,
                                  self._loaded.fingerprint if self._loaded else '',
                                  self._settings))
        controller = self._controller
        if controller is not None:
            with controller.worker.lock:
                controller.look_around()
                found += [status.commands(name, controller, self._holds),
                          status.latency(name, controller)]
        if self._inputs is not None:
            found.append(status.inputs(name, self._inputs, self._holds.current if controller
                                       else (*doubts, *self._inputs.missing())))
        self._diagnostics.publish(diagnostics.array(self.get_clock().now().nanoseconds, found))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until it is told to stop."""
    status = answer('policy_node', __doc__, Settings, arguments)
    return run(PolicyNode, arguments, _autostart, 'policy') if status is None else status


def _autostart(node: PolicyNode) -> bool:
    if node.get_parameter('autostart').value:
        return True
    name = node.get_fully_qualified_name()
    node.get_logger().info(f'waiting: `ros2 lifecycle set {name} configure`, then `... activate`; '
                           'with the parameter autostart the node does both by itself')
    return False


if __name__ == '__main__':
    sys.exit(main())
