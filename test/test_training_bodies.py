"""A robot of another body, by configuration alone: trained, kept, acting, and fine-tuned to."""

from pathlib import Path

import numpy as np
import pytest
from ros2_lstm_policy.data.store import StoreWriter
from ros2_lstm_policy.manifest import ActionGroup, Manifest, Normalisation, StateSpec
from ros2_lstm_policy.model import checkpoint
from ros2_lstm_policy.runtime.actor import PolicyActor
from ros2_lstm_policy.training import run
from ros2_lstm_policy.training.callbacks import LAST
from ros2_lstm_policy.transforms import normalise_images, normalise_states
from ros2_lstm_policy.types import Episode, Observation
import torch
import training_data

SIZE, STEPS = 32, 10
ACTIONS = [
    {'name': 'left', 'kind': 'joint_position', 'size': 3, 'names': ['a', 'b', 'c']},
    {'name': 'left_hand', 'kind': 'gripper', 'size': 1},
    {'name': 'right', 'kind': 'ee_pose', 'size': 6},
    {'name': 'right_hand', 'kind': 'gripper', 'size': 1, 'binary': True}]
STATES = [{'name': 'joints', 'size': 3}, {'name': 'wrench', 'size': 6}]
ONE_ARM = training_data.values(Path('run'), Path('store'))['manifest']


def write_store(path: Path) -> None:
    """Write six episodes of two arms that are told to go left and right."""
    rng = np.random.default_rng(0)
    groups = tuple(ActionGroup(g['name'], g['kind'], g['size'], None if g.get('binary') else
                               Normalisation.unit(9 if g['kind'] == 'ee_pose' else g['size']),
                               binary=g.get('binary', False)) for g in ACTIONS)
    states = tuple(StateSpec(s['name'], s['size'], Normalisation.unit(s['size'])) for s in STATES)
    writer = StoreWriter(path, Manifest(0.1, training_data.cameras(SIZE), groups, states))
    for number in range(6):
        joints = np.cumsum(rng.normal(0, 0.05, (STEPS, 3)), axis=0)
        writer.append(Episode(
            f'episode_{number}', list(training_data.TASKS)[number % 2],
            np.arange(STEPS, dtype=np.int64) * 100_000_000,
            {camera.name: rng.integers(0, 255, (STEPS, SIZE, SIZE, 3), np.uint8)
             for camera in training_data.cameras(SIZE)},
            {'left': joints + 0.1, 'left_hand': rng.uniform(0, 1, (STEPS, 1)),
             'right': rng.uniform(-1, 1, (STEPS, 6)),
             'right_hand': rng.integers(0, 2, (STEPS, 1))},
            {'joints': joints, 'wrench': rng.normal(0, 10, (STEPS, 6))}))
    writer.close()


def configured(tmp_path: Path, *changes: str, **manifest: object) -> run.TrainConfig:
    """Return the configuration of a short run."""
    values = training_data.values(tmp_path / 'run', tmp_path / 'store', steps=2)
    values['manifest'] = {'control_period_s': 0.1, 'cameras': values['manifest']['cameras'],
                          **manifest}
    return training_data.configured(values, *changes)


def observations() -> list[Observation]:
    """Return what two arms see and measure at five moments."""
    rng = np.random.default_rng(1)
    return [Observation(step, {camera.name: rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8)
                               for camera in training_data.cameras(SIZE)},
                        {'joints': rng.normal(size=3), 'wrench': rng.normal(0, 10, 6)})
            for step in range(3)]


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train two arms with states for two steps."""
    path = tmp_path_factory.mktemp('two arms')
    write_store(path / 'store')
    run.fit(configured(path, actions=ACTIONS, states=STATES))
    return path


def test_two_arms_with_states_act_as_they_were_trained(trained: Path) -> None:
    """Groups side by side, states normalised by the data, and every value in its own unit."""
    policy = checkpoint.load(trained / 'run' / LAST)
    assert policy.manifest.action('left').largest is not None
    actor = PolicyActor(policy)
    decisions = [actor.act(observation, 'go left') for observation in observations()]
    assert {name: values.shape for name, values in decisions[0].action.groups.items()} == {
        'left': (3,), 'left_hand': (1,), 'right': (6,), 'right_hand': (1,)}
    images = {camera.name: normalise_images(torch.from_numpy(
        np.stack([o.images[camera.name] for o in observations()])[None]), camera)
        for camera in policy.manifest.cameras}
    states = torch.from_numpy(np.stack([normalise_states(o.states, policy.manifest)
                                        for o in observations()])[None])
    with torch.no_grad():
        chunk = policy(images, policy.encode_instructions(['go left']), states)
        blind = policy(images, policy.encode_instructions(['go left']), states * 0)
    assert (chunk.continuous_BTKC - blind.continuous_BTKC).abs().max() > 1e-5
    found = np.stack([decision.chunk for decision in decisions])
    np.testing.assert_allclose(found[:, :, -1], chunk.binary_logit_BTKG[0, ..., 0].sigmoid(),
                               atol=1e-5)
    left = policy.manifest.action('left').normalisation
    assert left is not None
    np.testing.assert_allclose((found[:, :, :3] - left.offset) / np.array(left.scale),
                               chunk.continuous_BTKC[0, ..., :3], atol=1e-4)


def test_what_the_policy_needs_of_the_robot_is_asked_for_by_name(trained: Path) -> None:
    """A robot without a wrench sensor is another robot."""
    actor = PolicyActor(checkpoint.load(trained / 'run' / LAST))
    seen = observations()[0]
    with pytest.raises(ValueError, match="needs the state 'wrench'; there is joints"):
        actor.act(Observation(0, seen.images, {'joints': seen.states['joints']}), 'go left')


def test_a_policy_that_is_given_states_acts_as_before_until_it_is_trained(
        trained: Path, tmp_path: Path) -> None:
    """Fine-tuning onto a body with more streams begins where the other one ended."""
    training_data.write_store(tmp_path / 'store', size=SIZE)
    one_arm = training_data.configured(
        training_data.values(tmp_path / 'run', tmp_path / 'store', steps=2))
    run.fit(one_arm)
    said: list[str] = []
    config = configured(trained, 'output=other', f'init_from={tmp_path / "run" / LAST}',
                        'init_strict=false', actions=ACTIONS, states=STATES)
    policy = run.assemble(config, tell=said.append).objective.policy
    line = next(line for line in said if line.startswith('init_from'))
    assert 'states.mlp' in line and 'decoder.actions.mlp.6' in line
    begun, used = line.split('begun anew: ')[1].split('; not used: ')
    assert 'backbone' not in begun and 'rnn' not in begun and 'decoder.actions.mlp.6' in used
    old = checkpoint.load(tmp_path / 'run' / LAST)
    images = {name: torch.rand(1, 2, 3, SIZE, SIZE) for name in ('static', 'hand')}
    with torch.no_grad():
        before = old.encode(images, old.encode_instructions(['go left']))
        after = policy.eval().encode(images, policy.encode_instructions(['go left']),
                                     torch.randn(1, 2, 9))
    torch.testing.assert_close(after, before)


def test_another_body_is_no_start_unless_what_fits_is_asked_for(trained: Path,
                                                                tmp_path: Path) -> None:
    """The weights of three joints must not be read as those of something else."""
    other = [{**ACTIONS[0], 'kind': 'joint_delta'}, *ACTIONS[1:]]
    config = configured(trained, f'output={tmp_path}', f'init_from={trained / "run" / LAST}',
                        actions=other, states=STATES)
    with pytest.raises(ValueError, match="actions.0.1 is 'joint_position', wanted 'joint_delta'.*"
                                         'init_strict=false'):
        run.assemble(config, tell=lambda line: None)


def test_states_are_left_out_of_some_windows_in_training_alone(trained: Path) -> None:
    """Or the policy would copy them instead of looking."""
    config = configured(trained, 'output=other', 'policy.states.dropout=1.0', actions=ACTIONS,
                        states=STATES)
    policy = run.assemble(config, tell=lambda line: None).objective.policy
    assert policy.states is not None
    torch.nn.init.normal_(policy.states.mlp[-1].weight)
    tokens, states = torch.zeros(2, 3, 1, policy.backbone.feature_dim), torch.randn(2, 3, 9)
    assert not policy.train().with_states(tokens, states).any()
    assert policy.eval().with_states(tokens, states).any()
