"""What a group's values mean: every kind turns into the network's numbers and back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ros2_lstm_policy import config, transforms
from ros2_lstm_policy.data.statistics import fitted_group, fitted_state
from ros2_lstm_policy.kinds import KINDS, rotation_6d, rotation_vector
from ros2_lstm_policy.manifest import (ActionGroup, CameraSpec, Manifest, Normalisation, one_arm,
                                       StateSpec)
from scipy.spatial.transform import Rotation

CAMERAS = (CameraSpec('static', 8, 8, 'area', (0.5,) * 3, (0.5,) * 3),)
SHIPPED = Path(__file__).parents[1] / 'checkpoints' / 'compact_libero' / 'action.yaml'
OLD = """
frame: tool
rotation: euler_xyz
control_period_s: 0.1
arm: {offset: [0, 0, 0, 0, 0, 0], scale: [1, 1, 1, 2, 2, 2], mu: 63}
cameras:
- {name: static, height: 8, width: 8, interpolation: area, mean: [0, 0, 0], std: [1, 1, 1]}
gripper_threshold: 0.4
max_arm_delta: [1, 1, 1, 2, 2, 2]
"""


def group(kind, size, **more):
    """Return a continuous group whose numbers are normalised by 4."""
    numbers = KINDS[kind].numbers or size
    norm = Normalisation((0.0,) * numbers, (4.0,) * numbers)
    return ActionGroup('arm', kind, size, norm, **more)


GROUPS = [group('ee_delta', 6, frame='base'),
          group('ee_delta', 6, frame='tool', rotation='euler_xyz'), group('ee_pose', 6),
          group('joint_delta', 7), group('joint_position', 6), group('joint_velocity', 14),
          replace(group('gripper', 1), name='gripper')]


@pytest.mark.parametrize('each', GROUPS, ids=lambda each: f'{each.kind}-{each.rotation}')
def test_labels_turn_back_into_the_values_of_every_kind(each):
    """What the robot is told is what was recorded, near half a turn as well."""
    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 1, (5, 3, each.size))
    if each.kind == 'ee_pose':
        values[..., 3:] *= (np.pi - 1e-3) / np.linalg.norm(values[..., 3:], axis=-1, keepdims=True)
    manifest = Manifest(0.1, CAMERAS, (each,))
    continuous, binary = transforms.to_labels({each.name: values}, manifest)
    assert continuous.shape == (5, 3, each.label_size) and binary.shape == (5, 3, 0)
    back = transforms.from_labels(continuous, binary, manifest)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, values, atol=1e-5)


def test_a_rotation_that_a_network_gives_is_made_one():
    """Columns of any length that are not at right angles, and no jump at half a turn."""
    vectors = np.array([[np.pi - 1e-4, 0, 0], [-(np.pi - 1e-4), 0, 0]])
    columns = rotation_6d(vectors)
    assert np.abs(columns[0] - columns[1]).max() < 1e-3
    skewed = columns * 1.7 + [0, 0.1, 0, 0, 0, 0]
    matrix = Rotation.from_rotvec(rotation_vector(skewed)).as_matrix()
    np.testing.assert_allclose(matrix @ matrix.transpose(0, 2, 1), np.tile(np.eye(3), (2, 1, 1)),
                               atol=1e-9)


def test_several_groups_lie_side_by_side_in_the_order_of_the_manifest():
    """Two arms and two grippers: a binary group may stand anywhere."""
    hand = ActionGroup('left_hand', 'gripper', 1, binary=True)
    arms = [replace(group('joint_position', 2), name=name) for name in ('left', 'right')]
    manifest = Manifest(0.1, CAMERAS, (arms[0], hand, arms[1], replace(hand, name='right_hand')))
    values = {'left': [0.1, 0.2], 'left_hand': [1], 'right': [0.3, 0.4], 'right_hand': [0]}
    actions = {name: np.array([each], np.float64) for name, each in values.items()}
    flat = transforms.from_labels(*transforms.to_labels(actions, manifest), manifest)
    np.testing.assert_allclose(flat, [[0.1, 0.2, 1, 0.3, 0.4, 0]], atol=1e-7)
    for name, each in transforms.by_group(flat, manifest).items():
        np.testing.assert_allclose(each, actions[name], atol=1e-7)


def test_a_manifest_of_the_first_version_is_todays_with_one_arm_and_one_gripper(tmp_path):
    """Checkpoints and configurations that exist stay as they are."""
    path = tmp_path / 'action.yaml'
    path.write_text(OLD)
    found = config.load(Manifest, path)
    camera = CameraSpec('static', 8, 8, 'area', (0.0,) * 3, (1.0,) * 3)
    limits = (1.0,) * 3 + (2.0,) * 3
    assert found == one_arm('tool', 'euler_xyz', 0.1, Normalisation((0.0,) * 6, limits, 63.0),
                            (camera,), 0.4, limits)
    path.write_text(config.dump(found))
    assert config.load(Manifest, path) == found
    assert config.load(Manifest, SHIPPED).action('arm').largest == (0.05, 0.05, 0.05, 0.15, 0.15,
                                                                    0.5)


@pytest.mark.parametrize(('make', 'message'), [
    (lambda: ActionGroup('arm', 'torque', 7), "kind: expected one of ee_delta, .*'torque'"),
    (lambda: ActionGroup('arm', 'ee_pose', 7), 'ee_pose has 6 values, found size 7'),
    (lambda: ActionGroup('Arm', 'ee_pose', 6), "action 'Arm': a name is"),
    (lambda: ActionGroup('arm', 'joint_delta', 0), 'size must be at least 1'),
    (lambda: ActionGroup('arm', 'joint_delta', 2, names=('a', 'a')),
     'expected 2 names, each once'),
    (lambda: ActionGroup('arm', 'joint_delta', 2, binary=True), 'only a gripper is binary'),
    (lambda: replace(GROUPS[2], normalisation=Normalisation.unit(6)), 'need 9 values each'),
    (lambda: StateSpec('joints', 2, Normalisation.unit(3)), 'need 2 values each, found 3'),
    (lambda: Manifest(0.1, CAMERAS, ()), 'actions: expected at least one'),
    (lambda: Manifest(0.1, CAMERAS, (GROUPS[3], GROUPS[3])), 'actions must be named once each'),
    (lambda: Manifest(0.1, CAMERAS, (ActionGroup('a', 'gripper', 1, binary=True),)),
     'at least one continuous group'),
    (lambda: Manifest(0.1, CAMERAS, (ActionGroup('a', 'joint_delta', 1),)),
     'a: a normalisation is needed'),
    (lambda: Manifest(0.1, CAMERAS, (GROUPS[3],), (StateSpec('joints', 1),)),
     'joints: a normalisation is needed'),
    (lambda: Manifest(0.1, CAMERAS, (group('ee_delta', 6),)), "'base' or 'tool' must be said"),
])
def test_a_body_that_cannot_be_is_refused_by_name(make, message):
    """Found, wanted, and which part of the body it is."""
    with pytest.raises(ValueError, match=message):
        make()


def test_the_largest_step_of_positions_is_between_commands_and_never_across_episodes():
    """An arm that begins elsewhere did not jump there."""
    values = np.array([[0.0], [0.1], [0.3], [2.0], [2.05]])
    begins = np.array([True, False, False, True, False])
    found = fitted_group(ActionGroup('arm', 'joint_position', 1), values, begins, 'range')
    assert found.largest == (0.2,)
    assert found.normalisation.offset == (1.025,)
    delta = fitted_group(ActionGroup('arm', 'joint_delta', 1), values, begins, 'range')
    assert delta.largest == (2.05,)


def test_statistics_that_are_given_stay():
    """A run that goes on must not change what its numbers mean."""
    given = replace(GROUPS[3], largest=(0.5,) * 7)
    values = np.random.default_rng(0).normal(size=(9, 7))
    assert fitted_group(given, values, np.zeros(9, bool), 'quantile') == given
    state = StateSpec('joints', 7, Normalisation.unit(7))
    assert fitted_state(state, values, 'range') == state
    assert fitted_state(replace(state, normalisation=None), values, 'range').normalisation


def test_states_are_normalised_in_the_order_of_the_manifest_and_not_clipped():
    """One that is beyond what training saw stays visible as such."""
    states = (StateSpec('joints', 2, Normalisation((1.0, 0.0), (2.0, 1.0))),
              StateSpec('wrench', 1, Normalisation((0.0,), (10.0,))))
    manifest = Manifest(0.1, CAMERAS, (GROUPS[3],), states)
    found = transforms.normalise_states({'wrench': [[50.0]], 'joints': [[3.0, 0.5]]}, manifest)
    np.testing.assert_allclose(found, [[1.0, 0.5, 5.0]])
    with pytest.raises(ValueError, match="needs the state 'wrench'; there is joints"):
        transforms.normalise_states({'joints': np.zeros(2)}, manifest)
    with pytest.raises(ValueError, match="'joints': expected 2 values, found shape"):
        transforms.normalise_states({'joints': np.zeros(3), 'wrench': np.zeros(1)}, manifest)


def test_a_state_that_hardly_moved_in_training_is_not_blown_up():
    """A joint that was held still and moves by a degree on the robot says so, and no more."""
    values = np.zeros((20, 3))
    values[:, 0] = np.linspace(-1, 1, 20)
    state = fitted_state(StateSpec('joints', 3), values, 'range')
    manifest = Manifest(0.1, CAMERAS, (GROUPS[3],), (state,))
    found = transforms.normalise_states({'joints': np.array([0.0, 0.02, 0.0])}, manifest)
    assert np.abs(found).max() < 1
