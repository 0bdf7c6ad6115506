"""The whole policy: shapes, independence of its parts of a batch, and that it learns."""

import copy
import pickle

import pytest
from ros2_lstm_policy import config
from ros2_lstm_policy.config import ConfigError
from ros2_lstm_policy.manifest import CameraSpec, Normalisation, one_arm
from ros2_lstm_policy.model.losses import action_loss
from ros2_lstm_policy.model.policy import BackboneConfig, DecoderConfig, Policy, PolicyConfig
import torch

WORDS = ['push it', 'pick up the milk and put it in the basket']


def make_policy(down_sample='none', latent=1, **options):
    """Return a small policy of two cameras."""
    torch.manual_seed(0)
    cameras = tuple(CameraSpec(name, 32, 32, 'area', (0.5,) * 3, (0.5,) * 3)
                    for name in ('static', 'hand'))
    manifest = one_arm('base', 'rotation_vector', 0.1,
                       Normalisation((0.0,) * 6, (0.05,) * 6), cameras)
    small = {'width': 32, 'layers': 1, 'feed_forward': 32, 'dropout': 0.0,
             'vision_strides': [8], **options}
    decoder = DecoderConfig(hidden_size=24, num_layers=1, window_size=3, fwd_pred_next_n=2,
                            down_sample=down_sample, latent=latent)
    return Policy(PolicyConfig(BackboneConfig('compact', small), decoder), manifest)


def make_images(batch=2, steps=3):
    """Return normalised windows of noise."""
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(batch, steps, 3, 32, 32, generator=generator)
            for name in ('static', 'hand')}


@pytest.mark.parametrize(('down_sample', 'latent', 'tokens'), [
    ('none', 1, 1), ('none', 2, 2), ('pooling', 1, 3), ('resampler', 2, 3)])
def test_a_window_gives_a_chunk_at_every_step(down_sample, latent, tokens):
    policy = make_policy(down_sample, latent, action_tokens=tokens)
    images, text = make_images(), policy.encode_instructions(WORDS)
    assert policy.encode(images, text).shape == (2, 3, tokens, 32)
    arm, gripper = policy(images, text)
    assert arm.shape == (2, 3, 2, 6)
    assert gripper.shape == (2, 3, 2, 1)


@torch.no_grad()
def test_a_windows_output_does_not_depend_on_the_other_windows():
    policy = make_policy().eval()
    images = make_images()
    together = policy(images, policy.encode_instructions(WORDS))
    for b, words in enumerate(WORDS):
        alone = policy({name: image[b:b + 1] for name, image in images.items()},
                       policy.encode_instructions([words]))
        assert (alone.continuous_BTKC - together.continuous_BTKC[b:b + 1]).abs().max() <= 1e-5


@torch.no_grad()
def test_the_future_of_a_window_never_changes_its_past():
    policy = make_policy().eval()
    images, text = make_images(), policy.encode_instructions(WORDS)
    before = policy(images, text)
    images['static'][:, -1] += 1
    after = policy(images, text)
    assert torch.equal(before.continuous_BTKC[:, :-1], after.continuous_BTKC[:, :-1])
    assert not torch.equal(before.continuous_BTKC[:, -1], after.continuous_BTKC[:, -1])


def test_every_trainable_parameter_gets_a_gradient():
    policy = make_policy(tune_vision=True, film=True, vision_strides=[8, 16])
    arm, gripper = policy(make_images(), policy.encode_instructions(WORDS))
    (arm.sum() + gripper.sum()).backward()
    without = [name for name, p in policy.named_parameters() if p.grad is None]
    assert without == []


def test_it_learns_a_batch_by_heart():
    policy = make_policy().train()
    optimiser = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], 3e-3)
    images = make_images(batch=4)
    generator = torch.Generator().manual_seed(1)
    arm = torch.rand(4, 3, 2, 6, generator=generator) * 1.6 - 0.8
    gripper = torch.randint(0, 2, (4, 3, 2, 1), generator=generator)
    first = None
    for _ in range(60):
        found = action_loss(policy(images, policy.encode_instructions(WORDS * 2)), arm, gripper)
        first = first or (found.arm.item(), found.gripper.item())
        optimiser.zero_grad()
        (found.arm + found.gripper).backward()
        optimiser.step()
    assert found.arm.item() < 0.25 * first[0]
    assert found.gripper.item() < 0.25 * first[1]
    assert found.gripper_accuracy.item() == 1


def test_a_copy_or_a_pickle_is_small_and_says_the_same():
    policy = make_policy().eval()
    images = make_images()
    wanted = policy(images, policy.encode_instructions(WORDS)).continuous_BTKC
    dumped = pickle.dumps(policy)
    assert len(dumped) < 15e6
    for other in (copy.deepcopy(policy), pickle.loads(dumped)):
        assert torch.equal(other(images, other.encode_instructions(WORDS)).continuous_BTKC, wanted)


def test_training_goes_on_after_the_policy_has_acted_in_the_same_process():
    """Words kept while acting were tensors that no gradient could pass."""
    policy, words = make_policy(), ['words that were never said before']
    with torch.inference_mode():
        policy.eval().encode_instructions(words)
    text = policy.train().encode_instructions(words)
    policy(make_images(batch=1), text).continuous_BTKC.sum().backward()
    assert policy.backbone.text_projection.weight.grad.abs().sum() > 0


def test_a_configuration_is_read_back_as_it_was_written():
    policy = make_policy(film=True)
    values = config.plain(policy.config)
    assert config.parse(PolicyConfig, values, 'here') == policy.config
    assert policy.config.backbone.options['film'] is True
    assert policy.config.backbone.options['max_text_tokens'] == 24


@pytest.mark.parametrize(('values', 'message'), [
    ({'backbone': {'family': 'compact'}, 'decoder': {'window_size': 0}},
     'window_size must be at least 1, found 0'),
    ({'backbone': {'family': 'compact'}, 'decoder': {'history': 'all'}},
     "history: expected one of 'window', 'carry'"),
    ({'decoder': {}}, "missing key 'backbone'")])
def test_a_configuration_that_makes_no_policy_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        config.parse(PolicyConfig, values, 'here')


def test_tokens_that_do_not_fit_the_head_are_refused():
    policy = make_policy(action_tokens=3)
    with pytest.raises(ValueError, match="down_sample 'none' needs latent = 1"):
        policy(make_images(), policy.encode_instructions(WORDS))
