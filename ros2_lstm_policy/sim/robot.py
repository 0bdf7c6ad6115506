"""
The simulated robot: a Franka Panda in one LIBERO scene, one control period a step.

Everything is a function of the episode and the commands: the same ones give the same images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ros2_lstm_policy.kinds import ARM_DIM, rotation_6d
from ros2_lstm_policy.manifest import DEFAULT_CAMERAS
from ros2_lstm_policy.sim import backend, courses, suites, tasks
from ros2_lstm_policy.sim.arm import Arm, controller_of, prepare, ROBOTS, with_own_arm
from ros2_lstm_policy.sim.body import check, SimBody, USUAL
from ros2_lstm_policy.sim.cameras import MODEL_CAMERAS, SIDE, side_camera, SimCameras
from ros2_lstm_policy.sim.decimate import thin_visual_meshes
from ros2_lstm_policy.sim.hand import Pose
from ros2_lstm_policy.sim.privileged import nearest, Privileged
from ros2_lstm_policy.sim.single_pass import single_pass
from ros2_lstm_policy.sim.stages import Course, Wanted
from ros2_lstm_policy.sim.tasks import SimEpisode
from ros2_lstm_policy.sim.world import World
from ros2_lstm_policy.types import Action, ARM, GRIPPER, Observation
from scipy.spatial.transform import Rotation

CONTROL_PERIOD_S = 1.0 / backend.CONTROL_HZ
SETTLE_STEPS = 5
SETTLED_M = 0.03
LIFTED_M = 0.04
PLACEMENT_TRIES = 100
THINNED_CELLS = 32


@dataclass(frozen=True)
class SimState:
    """
    The simulated robot after a reset or a step.

    :param observation: upright images, none where the robot does not render; its stamp goes on
        by one control period a step, over resets too, as a robot's clock does.
    :param success: whether the episode's goal holds now, or all of its stages are done.
    :param lifted: objects that were lifted in this episode, the first one first.
    :param ee_pose: point between the finger tips, in world axes.
    :param joint_positions: (7,) rad.
    :param gripper_opening: 0 closed, 1 open.
    :param clipped: whether the last command was beyond what one control period allows.
    :param step: control periods since the reset.
    :param acted: those in which the robot could move, since the present stage began; what limits
        an episode's time goes by them.
    :param stage: number of the present stage, from 0; an episode of LIBERO has one.
    :param held: whether the robot is held in the coming period: commands are read and ignored.
    :param failure: why the episode cannot succeed any more; empty while it can.
    """

    observation: Observation
    success: bool
    lifted: tuple[str, ...]
    ee_pose: Pose
    joint_positions: np.ndarray
    gripper_opening: float
    clipped: bool
    step: int
    acted: int = 0
    stage: int = 0
    held: bool = False
    failure: str = ''

    def is_over(self, horizon: int) -> bool:
        """Return whether nothing more can come of it: success, failure or too many periods."""
        return self.success or bool(self.failure) or self.acted >= horizon


class Disturbance(Protocol):
    """Changes a robot's episodes: what it begins with, what happens on the way, what it sees."""

    def begin(self, robot: SimRobot) -> None:
        """Change the episode that has begun, before its first observation."""

    def step(self, robot: SimRobot, step: int) -> None:
        """Change what is there after a control period, before its observation."""

    def see(self, images: Mapping[str, np.ndarray], step: int) -> Mapping[str, np.ndarray]:
        """Return what the robot gets of the cameras' pictures."""


class SimRobot:
    """
    One scene, many episodes: making it takes seconds, a reset a tenth.

    :param scene: name of the scene, from an episode.
    :param image_size: (height, width) of each camera in pixels.
    :param seed: of the first, discarded reset.
    :param render: False for a robot without cameras, many times faster.
    :param thin_cells: how finely visual meshes are kept (see `decimate.py`); None for untouched.
    :param disturbance: what is changed in every episode; None for nothing.
    :param body: which arm it is, and how it is commanded.
    :raises ValueError: for an unknown scene, one of which LIBERO lacks a part, or a body that it
        cannot have.
    """

    def __init__(self, scene: str, image_size: tuple[int, int] = (128, 128), seed: int = 0,
                 render: bool = True, thin_cells: int | None = THINNED_CELLS,
                 disturbance: Disturbance | None = None, body: SimBody = USUAL) -> None:
        """Build the scene."""
        if min(image_size) < 1:
            raise ValueError(f'image_size must be positive, found {image_size}')
        file = tasks.scene_file(scene)
        suites.check_file(file)
        self.scene = scene
        self.manifest = body.manifest
        kind = self.manifest.action(ARM).kind if self.manifest else 'ee_delta'
        self._wrapper = backend.make_environment(file, ROBOTS[body.arm], controller_of(kind))
        self.environment: Any = self._wrapper.env
        prepare(self.environment.robots[0], CONTROL_PERIOD_S)
        # observables of all objects, computed 50 times a control period and read by nobody
        self.environment._observables.clear()
        model = self.environment.sim.model._model
        if thin_cells is not None:
            thin_visual_meshes(model, thin_cells)
        self._disturbance = disturbance
        with numpy_seed(seed):
            self.environment.reset()  # the first one after building differs from later ones
        self.privileged = Privileged(self.environment)
        self._arm = Arm(self.environment.robots[0], kind, CONTROL_PERIOD_S)
        if self.manifest:
            check(self.manifest, CONTROL_PERIOD_S, (*MODEL_CAMERAS, SIDE),
                  {ARM: self._arm.size, GRIPPER: 1},
                  {name: len(values) for name, values in self._measure().items()})
        views = {**MODEL_CAMERAS, SIDE: side_camera(self.privileged.hand.base_position)}
        self.cameras = SimCameras(model, image_size, {
            name: views[name] for name in self.camera_names}) if render else None
        self._world = World(self.environment, self.privileged, self._settle)
        self._course: Course | None = None
        self._episode: SimEpisode | None = None
        self._periods = 0
        self._step = self._acted = 0
        self._shown: tuple[int, Mapping[str, np.ndarray]] = (-1, {})
        self._rest_heights: Mapping[str, float] = {}
        self._lifted: tuple[str, ...] = ()

    @property
    def episode(self) -> SimEpisode:
        """Return the episode under way. :raises RuntimeError: before the first reset."""
        if self._episode is None:
            raise RuntimeError('the simulated robot has no episode yet: call reset first')
        return self._episode

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Return the cameras that it has."""
        return tuple(c.name for c in self.manifest.cameras) if self.manifest else DEFAULT_CAMERAS

    def express(self, action: Action) -> Action:
        """
        Return an action of the scripted expert as this body is commanded.

        :param action: `arm`, (6,) displacement in world axes, m and a rotation vector in rad, as
            LIBERO's controller is told; `gripper`.
        """
        return Action.one_arm(self._arm.express(action.arm), action.gripper_open)

    def still(self) -> Action:
        """Return the expert's action that does nothing, with an open gripper."""
        return Action.one_arm(np.zeros(ARM_DIM, np.float32), 1.0)

    def closes(self, action: Action) -> bool:
        """Return whether an action closes a gripper."""
        return action.gripper_open <= 0.5

    def nearest_object(self) -> str | None:
        """Return the object nearest to the gripper sideways, None where it reaches none."""
        places = {name: self.privileged.position(name) for name in self.movable}
        return nearest(self.privileged.hand.position, places)

    def wanted(self) -> Wanted:
        """Return what the robot is to do now, for who knows the simulator's state."""
        return self._under_way.wanted()

    @property
    def stages(self) -> int:
        """Return how many stages the episode under way has."""
        return len(self._under_way)

    @property
    def _under_way(self) -> Course:
        if self._course is None:
            raise RuntimeError('the simulated robot has no episode yet: call reset first')
        return self._course

    @property
    def movable(self) -> tuple[str, ...]:
        """Return the objects that can be permuted and targeted: all but containers."""
        return tuple(o for o in self.privileged.objects if not _is_container(o))

    def reset(self, episode: SimEpisode) -> SimState:
        """
        Begin an episode; the gripper is open and all is at rest.

        :raises ValueError: for an episode of another scene, an unknown object or state, or slots
            that leave no room.
        """
        self._check(episode)
        self._episode = episode
        self.environment.parsed_problem['goal_state'] = [list(p) for p in episode.goal]
        self._rest_heights = {}
        self._world.begin()
        with numpy_seed(episode.seed):
            self._place(episode)
        self._lifted, self._step = (), 0
        self._periods += 1
        if self._disturbance is not None:
            self._disturbance.begin(self)
        self._course = courses.of_episode(self._world, episode, backend.CONTROL_HZ)
        self._begin_stage()
        return self._state(clipped=False)

    def step(self, action: Action) -> SimState:
        """
        Move for one control period.

        :param action: `arm`, in the manifest's kind; without one (6,) displacement in world axes,
            m and a rotation vector in rad. What exceeds one control period is clipped. `gripper`,
            open above 0.5.
        :raises ValueError: for another shape or values that are not finite.
        """
        move = self._arm.move(action.arm)
        course = self._under_way
        stage = course.stage
        if not course.holds(move.displacement):
            self._advance(move.values, action.gripper_open > 0.5)
            self._acted += 1
        course.advance()
        if course.stage != stage:
            self._begin_stage()
        self._step += 1
        self._periods += 1
        if self._disturbance is not None:
            self._disturbance.step(self, self._step)
        return self._state(move.clipped)

    def close(self) -> None:
        """Free the rendering context and the simulation."""
        if self.cameras is not None:
            self.cameras.close()
        self._wrapper.close()

    def _check(self, episode: SimEpisode) -> None:
        if episode.scene != self.scene:
            raise ValueError(f'{episode.name}: is of scene {episode.scene!r}, but this robot '
                             f'stands in {self.scene!r}; make another one')
        for name in filter(None, (episode.target, episode.container)):
            if name not in self.privileged.objects:
                raise ValueError(f'{episode.name}: no object {name!r} in {self.scene}; there are '
                                 f'{", ".join(self.privileged.objects)}')
        if episode.slots is not None and sorted(episode.slots) != list(range(len(self.movable))):
            raise ValueError(f'{episode.name}: slots must permute 0..{len(self.movable) - 1}, '
                             f'found {episode.slots}')

    def _place(self, episode: SimEpisode) -> None:
        """Place everything and let it come to rest; what LIBERO placed badly is placed again."""
        for _ in range(PLACEMENT_TRIES):
            gripper = self.environment.robots[0].gripper
            gripper.current_action = np.zeros(gripper.dof)  # robosuite keeps it over resets
            self._wrapper.reset()
            self._arm.begin()
            if episode.official_state is not None:
                self._set_state(self._official_state(episode))
                self._settle()
                return
            if episode.slots is not None:
                self._permute(episode.slots)
            if not self.privileged.objects_touch() and self._settle() < SETTLED_M:
                return
        raise ValueError(f'{episode.name}: objects touch or fall after each of '
                         f'{PLACEMENT_TRIES} placements; use another seed or other slots')

    def _permute(self, slots: tuple[int, ...]) -> None:
        """Exchange the objects' places on the table."""
        joints = [self.environment.objects_dict[o].joints[-1] for o in self.movable]
        data = self.environment.sim.data
        poses = [data.get_joint_qpos(joint).copy() for joint in joints]
        for joint, pose, slot in zip(joints, poses, slots):
            data.set_joint_qpos(joint, np.concatenate([poses[slot][:2], pose[2:]]))
        self.environment.sim.forward()

    def _settle(self) -> float:
        """
        Let everything come to rest; return how far an object moved sideways, m.

        LIBERO places objects up to 4 cm within the floor; most rise, a few are thrown away.
        """
        before = [self.privileged.position(o)[:2] for o in self.movable]
        for _ in range(SETTLE_STEPS):
            self._advance(self._arm.hold(), gripper_open=True)
        after = [self.privileged.position(o)[:2] for o in self.movable]
        return max((float(np.linalg.norm(b - a)) for b, a in zip(before, after)), default=0.0)

    def _official_state(self, episode: SimEpisode) -> np.ndarray:
        suite, _, index = episode.task.partition('/')
        states = backend.official_states(backend.suite_tasks(suite)[int(index)])
        if not 0 <= (episode.official_state or 0) < len(states):
            raise ValueError(f'{episode.name}: {episode.task} has {len(states)} official initial '
                             f'states, asked for number {episode.official_state}')
        return states[episode.official_state]

    def _set_state(self, state: np.ndarray) -> None:
        sim = self.environment.sim
        sim.set_state_from_flattened(with_own_arm(
            state, sim.data.qpos, sim.data.qvel, len(self.environment.robots[0].robot_joints)
            + len(self.environment.robots[0].gripper_joints)))
        sim.data.qacc_warmstart[:] = 0  # left by the placement that this state replaces
        sim.forward()
        self.environment._post_process()
        self._arm.begin()

    def _begin_stage(self) -> None:
        """Count time and what is lifted from here."""
        self._acted = 0
        self._rest_heights = {o: self.privileged.position(o)[2] for o in self.movable}

    def _advance(self, arm: np.ndarray, gripper_open: bool) -> None:
        action = np.append(arm, -1.0 if gripper_open else 1.0)
        with single_pass(self.environment.sim):
            self.environment.step(action)
        self._world.moved()
        for name, height in self._rest_heights.items():
            risen = self.privileged.position(name)[2] - height
            if risen > LIFTED_M and name not in self._lifted:
                self._lifted += (name,)

    def _measure(self) -> dict[str, np.ndarray]:
        """Return every state that this robot has: joints in rad, the hand's opening and pose."""
        return {'joints': self.privileged.hand.joint_positions.copy(),
                'opening': np.array([self.privileged.hand.opening]),
                'ee_pose': pose_numbers(self.privileged.hand.pose)}

    def _state(self, clipped: bool) -> SimState:
        stamp_ns = self._periods * round(1e9 * CONTROL_PERIOD_S)
        course = self._under_way
        return SimState(
            observation=Observation(stamp_ns, self._images(), self._measure()),
            success=course.success, lifted=self._lifted,
            ee_pose=self.privileged.hand.pose,
            joint_positions=self.privileged.hand.joint_positions,
            gripper_opening=self.privileged.hand.opening, clipped=clipped, step=self._step,
            acted=self._acted, stage=course.stage, held=course.holds(np.zeros(ARM_DIM)),
            failure=course.standing.failure)

    def _images(self) -> Mapping[str, np.ndarray]:
        """Return what the cameras see; a scene that stands still is rendered once."""
        images: Mapping[str, np.ndarray] = {}
        if self.cameras is not None:
            if self._shown[0] != self._world.version:
                images = self.cameras.render(self.environment.sim.data._data)
                self._shown = self._world.version, images
            images = self._shown[1]
        return images if self._disturbance is None else self._disturbance.see(images, self._step)


def pose_numbers(pose: Pose) -> np.ndarray:
    """Return a pose as a state has it: x y z, and the first two columns of the rotation."""
    vector = Rotation.from_quat(pose.quaternion).as_rotvec()
    return np.concatenate([pose.position, rotation_6d(vector)])


def _is_container(name: str) -> bool:
    return tasks.words(name).endswith(('basket', 'tray'))  # 'red_basket_1' too


@contextlib.contextmanager
def numpy_seed(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which LIBERO draws from, and put it back afterwards."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
