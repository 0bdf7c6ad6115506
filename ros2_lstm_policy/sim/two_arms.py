"""
Two Pandas on opposite sides of a table, who lift a pot by its two handles: robosuite's TwoArmLift.

It is no scene of LIBERO, and shares with :class:`SimRobot` what a simulated robot is made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ros2_lstm_policy.kinds import ARM_DIM
from ros2_lstm_policy.manifest import (ActionGroup, CameraSpec, Manifest, Normalisation,
                                       StateSpec)
from ros2_lstm_policy.sim import backend
from ros2_lstm_policy.sim.arm import Arm, controller_of, prepare
from ros2_lstm_policy.sim.body import check, SimBody, USUAL
from ros2_lstm_policy.sim.cameras import SimCameras
from ros2_lstm_policy.sim.decimate import thin_visual_meshes
from ros2_lstm_policy.sim.hand import Hand
from ros2_lstm_policy.sim.privileged import nearest
from ros2_lstm_policy.sim.robot import (CONTROL_PERIOD_S, Disturbance, numpy_seed, pose_numbers,
                                        SETTLE_STEPS, THINNED_CELLS)
from ros2_lstm_policy.sim.single_pass import single_pass
from ros2_lstm_policy.sim.stages import LiftTogether, Wanted
from ros2_lstm_policy.sim.tasks import POT, SimEpisode
from ros2_lstm_policy.types import Action, Observation

SIDES = ('left', 'right')  # robosuite's robot0 and robot1
CAMERAS = {'static': 'agentview', 'left_hand': 'robot0_eye_in_hand',
           'right_hand': 'robot1_eye_in_hand'}
LIFTED_M = 0.02


def _usual() -> Manifest:
    """Return the body for which no manifest is given: Cartesian displacements of both arms."""
    unit = Normalisation.unit
    groups, states = [], []
    for side in SIDES:
        groups += [ActionGroup(f'{side}_arm', 'ee_delta', ARM_DIM, unit(ARM_DIM), frame='base'),
                   ActionGroup(f'{side}_gripper', 'gripper', 1, binary=True)]
        states += [StateSpec(f'{side}_joints', 7, unit(7)),
                   StateSpec(f'{side}_opening', 1, unit(1))]
    cameras = tuple(CameraSpec(name, 128, 128, 'area', (0.5,) * 3, (0.5,) * 3)
                    for name in CAMERAS)
    return Manifest(CONTROL_PERIOD_S, cameras, tuple(groups), tuple(states))


@dataclass(frozen=True)
class TwoArmState:
    """
    The two arms after a reset or a step; the fields are those of :class:`SimState`.

    :param lifted: the pot, once it has left the table.
    """

    observation: Observation
    success: bool
    lifted: tuple[str, ...]
    clipped: bool
    step: int
    held: bool = False
    failure: str = ''

    @property
    def acted(self) -> int:
        """Return the control periods in which it could move: all."""
        return self.step

    def is_over(self, horizon: int) -> bool:
        """Return whether nothing more can come of it: success, or too many periods."""
        return self.success or self.step >= horizon


class TwoArmRobot:
    """
    One table, many episodes.

    :param scene: 'two_arm_lift'.
    :param image_size: (height, width) of each camera in pixels.
    :param render: False for arms without cameras, many times faster.
    :param disturbance: has to be None: changed conditions are for LIBERO's scenes.
    :param body: how the arms are commanded.
    :raises ValueError: for a body that they cannot have, or changed conditions.
    """

    def __init__(self, scene: str, image_size: tuple[int, int] = (128, 128), render: bool = True,
                 disturbance: Disturbance | None = None, body: SimBody = USUAL) -> None:
        """Build the table."""
        if disturbance is not None:
            raise ValueError('conditions can be changed in scenes of LIBERO, not of two arms')
        if body.arm != 'panda':
            raise ValueError(f'the two arms are Pandas, found {body.arm!r}')
        self.scene, self.manifest = scene, body.manifest or _usual()
        kinds = [self.manifest.action(f'{side}_arm').kind for side in SIDES]
        self.environment: Any = backend.make_two_arms([controller_of(kind) for kind in kinds])
        robots = self.environment.robots
        for robot in robots:
            prepare(robot, CONTROL_PERIOD_S)
        model = self.environment.sim.model._model
        thin_visual_meshes(model, THINNED_CELLS)
        with numpy_seed(0):
            self.environment.reset()  # the first one after building differs from later ones
        self.hands = {side: Hand(robot) for side, robot in zip(SIDES, robots)}
        self._arms = {side: Arm(robot, kind, CONTROL_PERIOD_S)
                      for side, robot, kind in zip(SIDES, robots, kinds)}
        sizes = {f'{side}_arm': arm.size for side, arm in self._arms.items()}
        check(self.manifest, CONTROL_PERIOD_S, CAMERAS,
              {**sizes, **{f'{side}_gripper': 1 for side in SIDES}},
              {name: len(values) for name, values in self._measure().items()})
        self.cameras = SimCameras(model, image_size, {
            camera.name: CAMERAS[camera.name]
            for camera in self.manifest.cameras}) if render else None
        self._episode: SimEpisode | None = None
        self._periods = self._step = 0
        self._lifted: tuple[str, ...] = ()

    @property
    def episode(self) -> SimEpisode:
        """Return the episode under way. :raises RuntimeError: before the first reset."""
        if self._episode is None:
            raise RuntimeError('the simulated robot has no episode yet: call reset first')
        return self._episode

    def reset(self, episode: SimEpisode) -> TwoArmState:
        """
        Begin an episode; the grippers are open and all is at rest.

        :raises ValueError: for an episode of another scene.
        """
        if episode.scene != self.scene:
            raise ValueError(f'{episode.name}: is of scene {episode.scene!r}, but these arms '
                             f'stand at {self.scene!r}; make another robot')
        self._episode, self._lifted, self._step = episode, (), 0
        self._periods += 1
        for robot in self.environment.robots:
            robot.gripper.current_action = np.zeros(robot.gripper.dof)
        with numpy_seed(episode.seed):
            self.environment.reset()
        for arm in self._arms.values():
            arm.begin()
        for _ in range(SETTLE_STEPS):
            self._advance({side: arm.hold() for side, arm in self._arms.items()},
                          dict.fromkeys(SIDES, True))
        self._rest_m = self.handle('left')[2]
        return self._state(clipped=False)

    def step(self, action: Action) -> TwoArmState:
        """
        Move for one control period.

        :param action: `left_arm`, `left_gripper` and so on, in the manifest's kinds.
        :raises ValueError: for another shape or values that are not finite.
        """
        moves = {side: arm.move(action.groups[f'{side}_arm']) for side, arm in self._arms.items()}
        self._advance({side: move.values for side, move in moves.items()},
                      {side: self._opens(action, side) for side in SIDES})
        self._step += 1
        self._periods += 1
        if min(self.handle(side)[2] for side in SIDES) - self._rest_m > LIFTED_M:
            self._lifted = (POT,)
        return self._state(any(move.clipped for move in moves.values()))

    def close(self) -> None:
        """Free the rendering context and the simulation."""
        if self.cameras is not None:
            self.cameras.close()
        self.environment.close()

    def express(self, action: Action) -> Action:
        """Return an action of the scripted expert as these arms are commanded."""
        arms = {f'{side}_arm': arm.express(action.groups[f'{side}_arm'])
                for side, arm in self._arms.items()}
        return Action({group.name: arms.get(group.name, action.groups[group.name])
                       for group in self.manifest.actions})

    def still(self) -> Action:
        """Return the expert's action that does nothing, with open grippers."""
        one = np.ones(1, np.float32)
        return Action({name: value for side in SIDES for name, value in (
            (f'{side}_arm', np.zeros(ARM_DIM, np.float32)), (f'{side}_gripper', one))})

    def closes(self, action: Action) -> bool:
        """Return whether an action closes a gripper."""
        return not all(self._opens(action, side) for side in SIDES)

    def nearest_object(self) -> str | None:
        """Return the pot where a hand reaches one of its handles, else None."""
        found = [nearest(self.hands[side].position, {POT: self.handle(side)}) for side in SIDES]
        return next(filter(None, found), None)

    def wanted(self) -> Wanted:
        """Return what the arms are to do now, for who knows the simulator's state."""
        return LiftTogether(POT)

    def handle(self, side: str) -> np.ndarray:
        """Return the middle of the handle on a side, (3,) m."""
        sites = (self.environment.handle0_site_id, self.environment.handle1_site_id)
        return self.environment.sim.data.site_xpos[sites[SIDES.index(side)]].copy()

    def grips(self, side: str) -> bool:
        """Return whether both fingers of a side touch the pot."""
        return self.hands[side].touching(int(self.environment.pot_body_id)) == 2

    @staticmethod
    def _opens(action: Action, side: str) -> bool:
        return bool(action.groups[f'{side}_gripper'][0] > 0.5)

    def _advance(self, values: Mapping[str, np.ndarray], opens: Mapping[str, bool]) -> None:
        told = [np.append(values[side], -1.0 if opens[side] else 1.0) for side in SIDES]
        with single_pass(self.environment.sim):
            self.environment.step(np.concatenate(told))

    def _measure(self) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for side, hand in self.hands.items():
            found |= {f'{side}_joints': hand.joint_positions,
                      f'{side}_opening': np.array([hand.opening]),
                      f'{side}_ee_pose': pose_numbers(hand.pose)}
        return found

    def _state(self, clipped: bool) -> TwoArmState:
        images: Mapping[str, np.ndarray] = {}
        if self.cameras is not None:
            images = self.cameras.render(self.environment.sim.data._data)
        stamp_ns = self._periods * round(1e9 * CONTROL_PERIOD_S)
        return TwoArmState(Observation(stamp_ns, images, self._measure()),
                           bool(self.environment._check_success()), self._lifted, clipped,
                           self._step)
