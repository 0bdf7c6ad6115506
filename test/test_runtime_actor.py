"""The actor equals training, keeps nothing of an old episode, refuses what it cannot act on."""

import dataclasses

import numpy as np
import pytest
from ros2_lstm_policy.manifest import CameraSpec, Normalisation, one_arm
from ros2_lstm_policy.model.backbones.base import InstructionTooLong
from ros2_lstm_policy.model.policy import BackboneConfig, DecoderConfig, Policy, PolicyConfig
from ros2_lstm_policy.runtime import engine
from ros2_lstm_policy.runtime.actor import MissingCamera, NonFiniteAction, PolicyActor
from ros2_lstm_policy.transforms import from_labels, normalise_images, resize
from ros2_lstm_policy.types import Observation
import torch

INSTRUCTION = 'pick up the milk and put it in the basket'
WINDOW, CHUNK, STEPS = 4, 3, 11


def make_manifest(names=('static', 'hand'), rotation='rotation_vector'):
    """Return a manifest with small cameras."""
    cameras = tuple(CameraSpec(name, 32, 48, 'area', (0.5,) * 3, (0.25,) * 3) for name in names)
    norm = Normalisation((0.01,) * 6, (0.05,) * 3 + (0.5,) * 3)
    return one_arm('base', rotation, 0.1, norm, cameras)


def make_policy(manifest=None, **decoder):
    """Return a small policy with random weights that make features differ."""
    torch.manual_seed(0)
    config = PolicyConfig(
        BackboneConfig('compact', {'width': 32, 'layers': 1, 'feed_forward': 32}),
        DecoderConfig(**{'hidden_size': 16, 'num_layers': 2, 'window_size': WINDOW,
                         'fwd_pred_next_n': CHUNK, **decoder}))
    policy = Policy(config, manifest or make_manifest()).eval()
    with torch.no_grad():
        for parameter in policy.decoder.rnn.parameters():
            parameter.mul_(3)  # a fresh LSTM says nearly the same at every step
    return policy


def make_observations(count=STEPS, names=('static', 'hand')):
    """Return observations of noise at a camera's size."""
    rng = np.random.default_rng(0)
    return [Observation(t, {name: rng.integers(0, 256, (60, 80, 3), np.uint8) for name in names})
            for t in range(count)]


def run(actor, observations, instruction=INSTRUCTION):
    """Return the chunks (T, K, 7) of one episode."""
    return np.stack([actor.act(observation, instruction).chunk for observation in observations])


@torch.no_grad()
def window_forward(policy, observations, instruction=INSTRUCTION):
    """Return the last chunk (K, 7) of the training forward over one window."""
    images = {}
    for camera in policy.manifest.cameras:
        frames = [resize(o.images[camera.name], camera) for o in observations]
        images[camera.name] = normalise_images(torch.from_numpy(np.stack(frames))[None], camera)
    arm, logit = policy(images, policy.encode_instructions([instruction]))
    return from_labels(arm[0, -1].numpy(), logit[0, -1].sigmoid().numpy(), policy.manifest)


@pytest.fixture(scope='module')
def policy():
    """Return one policy for the tests that do not change it."""
    return make_policy()


def test_acting_equals_the_training_forward_at_every_step_of_an_episode(policy):
    observations = make_observations()
    got = run(PolicyActor(policy), observations)
    for t in range(STEPS):
        wanted = window_forward(policy, observations[max(0, t - WINDOW + 1):t + 1])
        assert np.abs(got[t] - wanted).max() <= 1e-5, t


def test_carried_history_equals_one_forward_over_the_whole_episode():
    policy = make_policy(history='carry')
    observations = make_observations()
    got = run(PolicyActor(policy), observations)
    for t in range(STEPS):
        assert np.abs(got[t] - window_forward(policy, observations[:t + 1])).max() <= 1e-5, t


def test_every_step_matters_to_the_chunk(policy):
    """A test of the tests: outputs of different steps differ far more than the tolerance."""
    got = run(PolicyActor(policy), make_observations())
    assert np.abs(np.diff(got, axis=0)).max(axis=(1, 2)).min() > 3e-4


def test_after_a_reset_the_actor_acts_as_a_fresh_one(policy):
    observations = make_observations()
    fresh = run(PolicyActor(policy), observations)
    actor = PolicyActor(policy, execute='ensemble')
    for before in (1, 3, 7):
        run(actor, observations[::-1][:before])
        actor.reset()
        assert np.array_equal(run(actor, observations), fresh)
        actor.reset()


def test_warming_up_leaves_nothing_behind(policy):
    observations = make_observations()
    actor = PolicyActor(policy)
    assert actor.warm_up() > 0
    assert np.array_equal(run(actor, observations), run(PolicyActor(policy), observations))


def test_two_actors_on_one_policy_do_not_share_an_episode(policy):
    observations = make_observations()
    one, other = PolicyActor(policy), PolicyActor(policy)
    wanted = run(PolicyActor(policy), observations)
    got = []
    for observation, distraction in zip(observations, observations[::-1]):
        other.act(distraction, 'push the box')
        got.append(one.act(observation, INSTRUCTION).chunk)
    assert np.array_equal(np.stack(got), wanted)


def test_an_action_that_is_settled_or_not_leads_to_the_same_next_one(policy):
    """The node settles when a command is out; a rollout never does, and the actor does it."""
    observations = make_observations()
    wanted = run(PolicyActor(policy), observations)
    actor = PolicyActor(policy)
    for t, observation in enumerate(observations):
        decision = actor.act(observation, INSTRUCTION)
        assert np.array_equal(decision.chunk, wanted[t]), t
        for _ in range(t % 3):
            decision.settle()
    old = decision
    actor.reset()
    old.settle()
    assert np.array_equal(run(actor, observations), wanted)


def test_a_decision_names_its_stages_and_holds_the_first_action(policy):
    decision = PolicyActor(policy).act(make_observations(1)[0], INSTRUCTION)
    assert list(decision.stage_s) == ['preprocess', 'text', 'backbone', 'head', 'postprocess']
    assert decision.chunk.shape == (CHUNK, 7)
    assert np.array_equal(decision.action.arm, decision.chunk[0, :6])
    assert decision.action.gripper_open == decision.chunk[0, 6]
    assert 0 < decision.action.gripper_open < 1


def test_words_change_what_is_done(policy):
    observation = make_observations(1)[0]
    milk = PolicyActor(policy).act(observation, INSTRUCTION).chunk
    soup = PolicyActor(policy).act(observation, 'pick up the tomato soup').chunk
    assert np.abs(milk - soup).max() > 1e-6


def test_an_instruction_is_encoded_once_not_once_a_frame(policy, monkeypatch):
    calls = []
    encode = policy.backbone.encode_text
    monkeypatch.setattr(policy.backbone, 'encode_text',
                        lambda text: calls.append(1) or encode(text))
    run(PolicyActor(policy), make_observations(4))
    assert len(calls) == 1


def test_a_missing_camera_is_named(policy):
    actor = PolicyActor(policy)
    observation = make_observations(1, names=('static',))[0]
    with pytest.raises(MissingCamera, match='image of hand; the observation has static'):
        actor.act(observation, INSTRUCTION)


def test_a_static_camera_policy_acts_without_a_hand_camera():
    actor = PolicyActor(make_policy(make_manifest(names=('static',))))
    assert actor.act(make_observations(1, names=('static',))[0], INSTRUCTION).chunk.shape == (3, 7)


def test_a_value_that_is_not_finite_is_refused_and_changes_no_state():
    policy = make_policy()
    observations = make_observations()
    wanted = run(PolicyActor(policy), observations)
    actor = PolicyActor(policy)
    got = [actor.act(observations[0], INSTRUCTION).chunk]
    bias = policy.decoder.gripper.mlp[6].bias
    good = bias.detach().clone()
    with torch.no_grad():
        bias[1] = float('nan')
        with pytest.raises(NonFiniteAction):
            actor.act(observations[1], INSTRUCTION)
        bias.copy_(good)
    got += [actor.act(observation, INSTRUCTION).chunk for observation in observations[1:]]
    assert np.array_equal(np.stack(got), wanted)


@pytest.mark.parametrize('image', [np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4), np.uint8),
                                   np.zeros((4, 4, 3), np.float32)])
def test_an_image_that_is_none_is_refused_by_its_camera(policy, image):
    observation = Observation(0, {**make_observations(1)[0].images, 'hand': image})
    with pytest.raises(ValueError, match="camera 'hand'"):
        PolicyActor(policy).act(observation, INSTRUCTION)


def test_an_instruction_that_does_not_fit_is_refused_not_cut(policy):
    with pytest.raises(InstructionTooLong, match='at most 24'):
        PolicyActor(policy).act(make_observations(1)[0], 'please ' * 40)


@pytest.mark.parametrize('instruction', ['', 'подними молоко', '牛乳を取って', '🤖 lift it'])
def test_any_short_instruction_gives_finite_actions(policy, instruction):
    chunk = PolicyActor(policy).act(make_observations(1)[0], instruction).chunk
    assert np.isfinite(chunk).all()


def test_images_may_change_size_between_frames(policy):
    actor = PolicyActor(policy)
    for height, width in [(60, 80), (480, 640), (32, 48)]:
        images = {name: np.full((height, width, 3), 90, np.uint8) for name in ('static', 'hand')}
        assert np.isfinite(actor.act(Observation(0, images), INSTRUCTION).chunk).all()


def test_euler_manifests_give_rotation_vectors():
    euler = make_policy(make_manifest(rotation='euler_xyz'))
    vector = make_policy()
    observation = make_observations(1)[0]
    euler_chunk = PolicyActor(euler).act(observation, INSTRUCTION).chunk
    vector_chunk = PolicyActor(vector).act(observation, INSTRUCTION).chunk
    assert np.allclose(euler_chunk[:, :3], vector_chunk[:, :3])
    assert not np.allclose(euler_chunk[:, 3:6], vector_chunk[:, 3:6], atol=1e-7)


def test_bf16_acts_close_to_fp32(policy):
    observations = make_observations(5)
    wanted = run(PolicyActor(policy), observations)
    got = run(PolicyActor(make_policy(), precision='bf16'), observations)
    assert 0 < np.abs(got - wanted)[..., :6].max() < 0.05


def capture_on_a_cpu(action):
    """Do as a capture does: run it some times, and return what runs it again."""
    for _ in range(3):
        action()
    return action


def test_replaying_a_captured_tick_equals_running_it(policy, monkeypatch):
    observations = make_observations(8)
    said = [INSTRUCTION, 'push it', INSTRUCTION, 'lift it', INSTRUCTION]
    eager, graph = PolicyActor(policy), PolicyActor(policy)
    captured = []

    def capture(tick):
        captured.append(tick)
        return capture_on_a_cpu(tick)
    monkeypatch.setattr(graph, '_engine',
                        engine.GraphEngine(engine.EagerEngine(policy), capture))
    for t, observation in enumerate(observations):
        if t == 5:
            eager.reset()
            graph.reset()
        words = said[t % len(said)]
        wanted, found = eager.act(observation, words), graph.act(observation, words)
        if t % 2:
            found.settle()
        assert np.abs(wanted.chunk - found.chunk).max() <= 1e-6
    assert len(captured) == 3  # the history, and two: 'push it' and 'lift it' are equally long
    assert list(found.stage_s) == ['preprocess', 'text', 'model', 'postprocess']


def test_a_cpu_has_no_cuda_graph(policy):
    assert isinstance(engine.create(policy, cuda_graph=True), engine.EagerEngine)


def test_an_unknown_way_to_execute_is_refused_when_the_actor_is_made(policy):
    with pytest.raises(ValueError, match='chunk:N'):
        PolicyActor(policy, execute=f'chunk:{CHUNK + 1}')


def test_policies_of_one_seed_are_equal():
    one, other = make_policy(), make_policy()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters()))
    assert dataclasses.asdict(one.config) == dataclasses.asdict(other.config)


@pytest.mark.parametrize('is_graph', [False, True])
def test_siblings_that_take_turns_act_as_if_each_were_alone(policy, monkeypatch, is_graph):
    """A graph keeps one episode's state in a fixed place: the others' must lie elsewhere."""
    first = PolicyActor(policy)
    if is_graph:
        monkeypatch.setattr(first, '_engine', engine.GraphEngine(
            engine.EagerEngine(policy), capture_on_a_cpu))
    actors = [first.sibling(), first.sibling(), first]
    alone = [PolicyActor(policy) for _ in actors]
    for t, observation in enumerate(make_observations(9)):
        for number in {0: (0, 1, 2), 1: (2, 0), 2: (1,)}[t % 3]:
            if t == 4:
                actors[number].reset()
                alone[number].reset()
            wanted = alone[number].act(observation, INSTRUCTION)
            found = actors[number].act(observation, INSTRUCTION)
            found.settle()
            assert np.abs(wanted.chunk - found.chunk).max() <= 1e-6


def test_pixels_that_are_resized_already_are_acted_on_as_they_are(policy):
    """A camera's crop must not be cut out of them twice."""
    observation = make_observations(1)[0]
    resized = {camera.name: resize(observation.images[camera.name], camera)
               for camera in policy.manifest.cameras}
    wanted = PolicyActor(policy).act(observation, INSTRUCTION)
    ready = dataclasses.replace(observation, images=resized, is_resized=True)
    found = PolicyActor(policy).act(ready, INSTRUCTION)
    np.testing.assert_array_equal(found.chunk, wanted.chunk)
    with pytest.raises(ValueError, match="camera 'static': expected the policy's"):
        PolicyActor(policy).act(dataclasses.replace(observation, is_resized=True), INSTRUCTION)
