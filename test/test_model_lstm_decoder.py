"""The decoder agrees with the reference's recorded values and keeps its corners."""

import json
from pathlib import Path

import numpy as np
import pytest
from ros2_lstm_policy.model.lstm_decoder import LSTMDecoder
import torch

GOLDEN = Path(__file__).parent / 'golden'
NAMES = ['lstm_none_w8', 'lstm_pooling_w12']


def load_golden(name):
    """Return the decoder with the recorded weights, and the recorded values as tensors."""
    arrays = np.load(GOLDEN / f'{name}.npz')
    values = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    decoder = LSTMDecoder(**json.loads(bytes(values.pop('config').tolist())))
    weights = {key.removeprefix('state_dict/'): value for key, value in values.items()
               if key.startswith('state_dict/')}
    decoder.load_state_dict(weights, strict=True)
    return decoder.eval(), values


@pytest.mark.parametrize('name', NAMES)
def test_window_forward_equals_the_reference(name):
    decoder, values = load_golden(name)
    with torch.no_grad():
        arm, gripper = decoder(values['batch/tokens'])
    assert (arm - values['batch/arm']).abs().max() <= 1e-5
    assert (gripper - values['batch/gripper_logits']).abs().max() <= 1e-5


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('masked', [True, False])
def test_losses_equal_the_reference(name, masked):
    decoder, values = load_golden(name)
    labels = values['loss/arm_labels'], values['loss/gripper_labels']
    pred = values['batch/arm'], values['batch/gripper_logits']
    found = decoder.loss(pred, labels, values['loss/mask'] if masked else None)
    wanted = values['loss/masked' if masked else 'loss/unmasked']
    got = [float(found[key]) for key in ('loss_arm', 'loss_gripper', 'acc_gripper')]
    assert np.abs(np.array(got) - wanted.numpy()).max() <= 1e-6


def test_the_training_example_runs_as_written():
    arm_labels, gripper_labels = torch.rand(5, 12, 2, 6), torch.ones(5, 12, 2)
    mask = torch.ones(5, 12, 2, dtype=torch.bool)
    net = LSTMDecoder(in_features=1024, action_dim=7, down_sample='pooling', latent=1,
                      fwd_pred_next_n=2, window_size=12)
    actions, gripper = net(torch.randn(5, 12, 8, 1024))
    loss = net.loss(torch.cat([actions, gripper.unsqueeze(-1)], dim=-1),
                    (arm_labels, gripper_labels), mask)
    assert actions.shape == (5, 12, 2, 6)
    assert gripper.shape == (5, 12, 2)
    assert set(loss) == {'loss_arm', 'loss_gripper', 'acc_gripper'}


def test_every_form_of_prediction_gives_the_same_loss():
    torch.manual_seed(0)
    net = LSTMDecoder(8, latent=1, fwd_pred_next_n=3, hidden_size=4, num_layers=1)
    arm, gripper = net(torch.randn(2, 5, 1, 8))
    labels = torch.rand(2, 5, 3, 6), torch.randint(0, 2, (2, 5, 3)).float()
    forms = [(arm, gripper), (arm, gripper.unsqueeze(-1)), [arm, gripper],
             torch.cat([arm, gripper.unsqueeze(-1)], -1)]
    losses = [net.loss(form, labels) for form in forms]
    assert all(loss == losses[0] for loss in losses)


def test_loss_without_labels_is_none():
    net = LSTMDecoder(8, hidden_size=4, num_layers=1)
    assert net.loss(net(torch.randn(1, 2, 1, 8)), None) == {'loss': None}


def test_loss_refuses_gripper_logits_of_another_shape():
    net = LSTMDecoder(8, fwd_pred_next_n=3, hidden_size=4, num_layers=1)
    arm, gripper = net(torch.randn(1, 2, 1, 8))
    labels = torch.zeros_like(arm), torch.zeros_like(gripper)
    with pytest.raises(ValueError, match='gripper logits'):
        net.loss((arm, gripper[..., :2]), labels)
    with pytest.raises(ValueError, match='validity mask'):
        net.loss((arm, gripper), labels, torch.ones(1, 2, dtype=torch.bool))


def test_masked_entries_change_nothing_but_valid_ones_do():
    torch.manual_seed(0)
    net = LSTMDecoder(8, fwd_pred_next_n=3, hidden_size=4, num_layers=1)
    pred = net(torch.randn(2, 5, 1, 8))
    arm, gripper = torch.rand(2, 5, 3, 6), torch.randint(0, 2, (2, 5, 3)).float()
    mask = torch.rand(2, 5, 3) > 0.4
    wanted = net.loss(pred, (arm, gripper), mask)
    spoilt_arm = torch.where(mask.unsqueeze(-1), arm, torch.full_like(arm, float('nan')))
    spoilt_gripper = torch.where(mask, gripper, 1 - gripper)
    assert net.loss(pred, (spoilt_arm, spoilt_gripper), mask) == wanted
    assert net.loss(pred, (arm, 1 - gripper), mask)['acc_gripper'] != wanted['acc_gripper']


def test_a_batch_without_a_valid_entry_costs_nothing():
    net = LSTMDecoder(8, fwd_pred_next_n=3, hidden_size=4, num_layers=1)
    arm, gripper = net(torch.randn(1, 2, 1, 8))
    nothing = torch.zeros(1, 2, 3, dtype=torch.bool)
    found = net.loss((arm, gripper), (torch.zeros_like(arm), torch.zeros_like(gripper)), nothing)
    assert found['loss_arm'] == 0
    assert found['loss_gripper'] == 0


def test_the_forward_continues_from_a_given_state():
    torch.manual_seed(0)
    net = LSTMDecoder(8, hidden_size=6, num_layers=2).eval()
    tokens = torch.randn(2, 7, 1, 8)
    whole = net(tokens)
    state = None
    for t in range(4):
        _, state = net.step(tokens[:, t], state)
    rest = net(tokens[:, 4:], state)
    assert torch.allclose(rest[0], whole[0][:, 4:], atol=1e-6)
    assert torch.allclose(rest[1], whole[1][:, 4:], atol=1e-6)


def test_a_single_step_forward_leaves_nothing_behind():
    torch.manual_seed(0)
    net = LSTMDecoder(8, hidden_size=6, num_layers=2).eval()
    token = torch.randn(1, 1, 1, 8)
    first = net(token)
    assert torch.equal(net(token)[0], first[0])


def test_pooling_is_a_max_over_tokens_flattened_token_by_token():
    net = LSTMDecoder(3, down_sample='pooling', latent=2, hidden_size=4, num_layers=1)
    tokens = torch.arange(24.0).view(1, 2, 4, 3)
    got = net.reduce_tokens(tokens)
    wanted = torch.stack([tokens[:, :, :2].amax(2), tokens[:, :, 2:].amax(2)], 2).flatten(2)
    assert torch.equal(got, wanted)


def test_widths_scale_with_latent():
    net = LSTMDecoder(16, latent=3, hidden_size=8, num_layers=2)
    assert (net.rnn.input_size, net.rnn.hidden_size) == (48, 24)
    assert net.actions.mlp[0].in_features == 24
    assert net(torch.randn(2, 4, 3, 16))[0].shape == (2, 4, 10, 6)


def test_linears_start_xavier_uniform_with_zero_bias_and_the_lstm_as_in_pytorch():
    torch.manual_seed(3)
    net = LSTMDecoder(16, hidden_size=32, num_layers=2)
    for layer in [*net.actions.mlp, *net.gripper.mlp]:
        if isinstance(layer, torch.nn.Linear):
            bound = (6 / (layer.in_features + layer.out_features)) ** 0.5
            assert not layer.bias.any()
            assert 0.9 * bound < layer.weight.abs().max() <= bound
    assert all(0.9 * 32 ** -0.5 < p.abs().max() <= 32 ** -0.5 for p in net.rnn.parameters())


def test_the_resampler_gives_latent_tokens_from_any_number():
    net = LSTMDecoder(16, down_sample='resampler', latent=2, hidden_size=8, num_layers=1)
    for tokens in (1, 7):
        assert net(torch.randn(2, 3, tokens, 16))[0].shape == (2, 3, 10, 6)


def test_tokens_that_do_not_fit_are_refused_with_what_to_do():
    net = LSTMDecoder(16, hidden_size=8, num_layers=1)
    with pytest.raises(ValueError, match='choose .pooling. or .resampler.'):
        net(torch.randn(2, 3, 5, 16))
    with pytest.raises(ValueError, match=r'expected \(B, T, N, 16\), found \(2, 3, 16\)'):
        net(torch.randn(2, 3, 16))
    with pytest.raises(ValueError, match='down_sample'):
        LSTMDecoder(16, down_sample='mean')
