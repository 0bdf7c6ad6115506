"""Each changed condition changes what it says and nothing else, the same again for a seed."""

from collections.abc import Iterator
import dataclasses
import difflib

import numpy as np
import pytest
from ros2_lstm_policy.sim import benchmarks
from ros2_lstm_policy.sim.expert import ScriptedExpert
from ros2_lstm_policy.sim.perturb import bodies, words
from ros2_lstm_policy.sim.perturb.disturbance import Perturber
from ros2_lstm_policy.sim.perturb.settings import PerturbConfig
from ros2_lstm_policy.sim.robot import SimRobot, SimState
from ros2_lstm_policy.types import Action

EPISODE = benchmarks.a()[10]
SIZE = (64, 64)
MOVES = [np.array([0.03, -0.02, -0.03, 0.0, 0.0, 0.2])] * 2
SEEN_ONLY = {'noise': 10.0, 'blur': 2.0, 'jpeg': 20, 'exposure': 1.0, 'white_balance': 0.2,
             'camera_move_m': 0.05, 'camera_turn_rad': 0.1, 'black': ('hand',), 'light': 1.0,
             'light_colour': 0.3, 'light_move_m': 2.0, 'table': 0.5, 'distractors': 3, 'delay': 1}


class Changed:
    """One robot for all tests, as making one takes seconds, whose conditions can be set."""

    def __init__(self) -> None:
        """Build the scene."""
        self.perturber = Perturber(PerturbConfig())
        self.robot = SimRobot(EPISODE.scene, SIZE, disturbance=self)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> object:
        """Do as the present conditions do."""
        return getattr(self.perturber, name)

    def run(self, episode=EPISODE, **axes: object) -> list[SimState]:
        """Run a few steps under changed conditions."""
        self.perturber._config = PerturbConfig(**axes)  # type: ignore[arg-type]
        states = [self.robot.reset(episode)]
        return states + [self.robot.step(Action.one_arm(arm, 1.0)) for arm in MOVES]


@pytest.fixture(scope='module')
def changed() -> Iterator[Changed]:
    """Return the robot and its conditions."""
    changed = Changed()
    yield changed
    changed.robot.close()


def physics(changed: Changed) -> np.ndarray:
    """Return all that the physics knows."""
    data = changed.robot.environment.sim.data._data
    return np.concatenate([data.qpos, data.qvel])


def images(states: list[SimState], camera: str = 'static') -> np.ndarray:
    """Return what a camera gave."""
    return np.array([state.observation.images[camera] for state in states])


def model_arrays(changed: Changed) -> dict[str, np.ndarray]:
    """Return everything of the compiled model that holds numbers."""
    model = changed.robot.environment.sim.model._model
    names = [name for name in dir(model) if not name.startswith('_')]
    return {name: value.copy() for name in names
            if isinstance(value := getattr(model, name), np.ndarray)}


@pytest.mark.parametrize('axis', SEEN_ONLY)
def test_what_is_only_seen_changes_pictures_and_no_physics(changed: Changed, axis: str) -> None:
    """The same commands bring about the same states, bit for bit; the pictures differ."""
    plain = changed.run()
    expected = physics(changed)
    found = changed.run(**{axis: SEEN_ONLY[axis]})
    assert np.array_equal(physics(changed), expected)
    cameras = ('hand',) if axis == 'black' else ('static', 'hand')
    if axis in ('distractors', 'table'):
        cameras = ('static',)
    for camera in cameras:
        assert np.abs(images(found, camera).astype(int) - images(plain, camera)).mean() > 0.1
    again = changed.run(**{axis: SEEN_ONLY[axis]})
    assert all(np.array_equal(images(found, c), images(again, c)) for c in ('static', 'hand'))
    assert np.array_equal(images(changed.run()), images(plain)), 'the change outlived its episode'


@pytest.mark.parametrize(('axis', 'arrays'), [
    ('camera_move_m', {'cam_pos'}), ('camera_turn_rad', {'cam_quat'}),
    ('light', {'light_diffuse', 'light_ambient', 'light_specular'}),
    ('light_move_m', {'light_pos'}), ('table', {'mat_rgba', 'geom_rgba'}), ('distractors', set()),
    ('noise', set()), ('delay', set())])
def test_a_change_of_the_scene_touches_what_it_says_alone(
        changed: Changed, axis: str, arrays: set[str]) -> None:
    """Of the compiled model; in the next episode it is as it was."""
    changed.run()
    plain = model_arrays(changed)
    changed.run(**{axis: SEEN_ONLY[axis]})
    found = {name for name, values in model_arrays(changed).items()
             if not np.array_equal(values, plain[name], equal_nan=values.dtype.kind == 'f')}
    assert found <= arrays and bool(found) == bool(arrays)
    changed.run()
    for name, values in model_arrays(changed).items():
        assert np.array_equal(values, plain[name], equal_nan=values.dtype.kind == 'f'), name


def test_strengths_are_what_they_say(changed: Changed) -> None:
    """Metres, stops, shares: in the model itself, whatever direction is drawn."""
    changed.run()
    model, plain = changed.robot.environment.sim.model._model, model_arrays(changed)
    changed.run(camera_move_m=0.05, light=1.0, table=0.5, cameras=('static',))
    moved = np.linalg.norm(model.cam_pos - plain['cam_pos'], axis=1)
    assert moved[model.camera('agentview').id] == pytest.approx(0.05)
    assert moved.sum() == pytest.approx(0.05), 'another camera was moved as well'
    gains = model.light_diffuse / plain['light_diffuse']
    assert np.allclose(gains, 2) or np.allclose(gains, 0.5)
    before = plain['mat_rgba'][:, :3]
    rows = np.flatnonzero((model.mat_rgba[:, :3] != before).any(1))
    factors = model.mat_rgba[rows, :3] / before[rows]
    assert len(rows) and set(np.round(factors.ravel(), 3)) <= {0.5, 1.5}


def test_a_camera_that_is_not_named_stays_as_it_is(changed: Changed) -> None:
    """The hand's camera alone is noisy, moved and blurred."""
    plain = changed.run()
    found = changed.run(noise=20.0, camera_move_m=0.02, blur=1.0, cameras=('hand',))
    assert np.array_equal(images(found), images(plain))
    assert not np.array_equal(images(found, 'hand'), images(plain, 'hand'))


def test_a_camera_fails_from_the_period_on_that_it_is_told(changed: Changed) -> None:
    """Black is black, noise or not; before it, pictures are those of the camera."""
    plain = changed.run()
    found = images(changed.run(black=('static',), black_from=1))
    assert np.array_equal(found[0], images(plain)[0])
    assert not found[1:].any()
    assert not images(changed.run(black=('static',), noise=20.0)).any()


def test_a_delay_shows_what_was_there_that_many_periods_ago(changed: Changed) -> None:
    """And at first what there is; the stamps are the clock's."""
    plain, late = changed.run(), changed.run(delay=1)
    assert np.array_equal(images(late)[0], images(plain)[0])
    assert np.array_equal(images(late)[1:], images(plain)[:-1])
    stamps = [np.diff([s.observation.stamp_ns for s in states]) for states in (plain, late)]
    assert np.array_equal(*stamps)


def test_the_arm_begins_elsewhere_and_stays_there(changed: Changed) -> None:
    """Within the strength, at rest; the objects stand where they stood."""
    plain = changed.run()[0]
    places = {o: changed.robot.privileged.position(o) for o in changed.robot.movable}
    found = changed.run(start_rad=0.12)[0]
    difference = np.abs(found.joint_positions - plain.joint_positions)
    assert 0.02 < difference.max() <= 0.12
    state = changed.robot.reset(EPISODE)
    for _ in range(3):
        held = changed.robot.step(Action.one_arm(np.zeros(6), 1.0))
    assert np.abs(held.joint_positions - state.joint_positions).max() < 0.02
    for name, place in places.items():
        assert np.linalg.norm(changed.robot.privileged.position(name) - place) < 0.002


def test_the_object_is_moved_once_when_the_hand_comes_near(changed: Changed) -> None:
    """Not before, by as much as is said, onto a free place; the expert still gets it."""
    changed.perturber._config = PerturbConfig(object_move_m=0.06)
    robot, target = changed.robot, EPISODE.target or ''
    state = robot.reset(EPISODE)
    expert = ScriptedExpert(robot)
    jumps: list[tuple[float, float]] = []
    while not state.success and state.step < 150:
        action, before = expert.act(), robot.privileged.position(target)
        near = np.linalg.norm(robot.privileged.points(target)
                              - robot.privileged.hand.position, axis=1).min()
        state = robot.step(action)
        level = float(np.linalg.norm((robot.privileged.position(target) - before)[:2]))
        if level > 0.045 and target not in state.lifted:
            jumps.append((level, near))
    ((level, near),) = jumps
    assert level == pytest.approx(0.06, abs=0.005)
    assert near < bodies.NEAR_M + 0.06, 'the hand was still far'
    assert state.success and state.lifted == (target,)
    assert f'{target} moved by' in changed.perturber.notes[-1]


def test_the_object_stays_where_it_is_while_the_hand_is_far(changed: Changed) -> None:
    """And the result says that it was not moved."""
    changed.run()
    expected = physics(changed)
    changed.run(object_move_m=0.06)
    assert np.array_equal(physics(changed), expected)
    assert 'was not moved: the hand did not come near' in changed.perturber.notes[-1]


def test_another_seed_and_another_episode_draw_otherwise_and_axes_do_not_disturb_each_other(
        changed: Changed) -> None:
    """Each axis of each episode has random numbers of its own."""
    def places(seed: int = 0, episode=EPISODE, **axes: object) -> np.ndarray:
        changed.run(episode, camera_move_m=0.05, seed=seed, **axes)
        return changed.robot.environment.sim.model._model.cam_pos.copy()

    first = places()
    assert np.array_equal(first, places(light=1.0, noise=5.0, start_rad=0.1, distractors=2))
    assert not np.array_equal(first, places(seed=1))
    assert not np.array_equal(first, places(episode=benchmarks.a()[11]))


def test_distractors_stand_clear_of_every_object(changed: Changed) -> None:
    """What covers the object that is meant would be another test."""
    changed.run(distractors=4)
    cameras = changed.robot.cameras
    assert cameras is not None and len(cameras.shapes) == 4
    assert sum(' at ' in note for note in changed.perturber.notes) == 4
    for shape in cameras.shapes:
        away = [np.linalg.norm(changed.robot.privileged.position(o)[:2] - shape.position[:2])
                for o in changed.robot.movable]
        assert min(away) > 0.05


def test_other_words_mean_the_same_and_typing_errors_are_as_many_as_said() -> None:
    """The same for a seed; nothing known, nothing changed."""
    told = EPISODE.instruction
    config = PerturbConfig(synonyms=1.0)
    assert told == 'pick up the butter and put it in the basket'
    assert words.said(told, config, 'e') == words.said(told, config, 'e') != told
    assert words.said(told, config, 'e').count('butter') == 1
    assert not words.said(told, config, 'e').startswith('pick')
    assert len({words.said(told, config, str(i)) for i in range(20)}) > 3
    assert words.said('juggle', config, 'e') == 'juggle'
    for typos in (1, 2, 4):
        wrong = words.said(told, PerturbConfig(typos=typos), 'e')
        parts = difflib.SequenceMatcher(None, told, wrong, autojunk=False).get_opcodes()
        assert 1 <= sum(tag != 'equal' for tag, *_ in parts) <= 2 * typos
        assert wrong != told
    for nothing in ('', 'a', '1 2 3'):
        assert words.said(nothing, PerturbConfig(typos=3), 'e') == nothing
    assert words.said(told, PerturbConfig(noise=3.0), 'e') == told


@pytest.mark.parametrize(('axes', 'complaint'), [
    ({'noise': -1.0}, 'noise must be in'), ({'noise': float('nan')}, 'noise must be in'),
    ({'jpeg': 0}, 'jpeg must be a quality'), ({'white_balance': 1.0}, 'white_balance must'),
    ({'object_move_m': 3.0}, 'object_move_m must'), ({'synonyms': 1.1}, 'synonyms must'),
    ({'delay': -1}, 'delay must'), ({'start_rad': 1.0}, 'start_rad must'),
    ({'black': ('left',)}, 'no camera left; there are static, hand'), ({'cameras': ()}, 'none'),
    ({'seed': -1}, 'must not be negative')])
def test_a_strength_that_means_nothing_is_refused(axes: dict, complaint: str) -> None:
    """With the range that it may have."""
    with pytest.raises(ValueError, match=complaint):
        PerturbConfig(**axes)


def test_what_is_kept_names_the_axes_that_are_changed_and_how_they_were_drawn() -> None:
    """A folder keeps to it; a seed alone changes nothing."""
    assert PerturbConfig(seed=3, cameras=('hand',)).changed == {}
    found = PerturbConfig(noise=5.0, black=('hand',), cameras=('static',)).changed
    assert found == {'seed': 0, 'cameras': ['static'], 'noise': 5.0, 'black': ['hand']}
    for field in dataclasses.fields(PerturbConfig):
        assert f':param {field.name}:' in (PerturbConfig.__doc__ or '')
