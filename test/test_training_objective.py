"""Every loss: it falls on one batch, its ratio scales its gradient, masked entries do nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ros2_lstm_policy import config
from ros2_lstm_policy.model.losses import action_loss
from ros2_lstm_policy.training import run
from ros2_lstm_policy.training.module import TrainingModule
from ros2_lstm_policy.training.objective import LossConfig, Outcome, Term, total
from ros2_lstm_policy.types import ActionChunk
import torch
from torch import Tensor
from training_data import configured, pairs, values, write_store

LOSSES = ('arm', 'gripper', 'forward_static', 'forward_hand', 'kl', 'caption', 'cotrain')
RATIOS = {'gripper': 'arm_gripper_loss_ratio', 'forward_static': 'fwd_loss_ratio',
          'forward_hand': 'fwd_loss_ratio', 'kl': 'kl_div_ratio', 'caption': 'cap_loss_ratio',
          'cotrain': 'vl_cotrain_ratio'}
GOLDEN = Path(__file__).parent / 'golden'


@pytest.fixture(scope='module')
def module(tmp_path_factory: pytest.TempPathFactory) -> TrainingModule:
    """Return an assembled run with every loss, without dropout."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp('objective')
    write_store(folder / 'store', episodes=6, steps=6)
    pairs(folder / 'pairs')
    chosen = configured(
        values(folder / 'run', folder / 'store'), 'policy.backbone.options.dropout=0.0',
        'data.loader.batch_size=4', 'losses.fwd_loss_ratio=0.1',
        'losses.forward={cameras: [static, hand], width: 32}', 'losses.latent={size: 4}',
        'losses.caption=true', 'losses.cotrain={path: %s, batch_size: 3}' % (folder / 'pairs'))
    made = run.assemble(chosen, tell=lambda line: None)
    made.train()
    return made


def outcome(module: TrainingModule, seed: int = 0, **changes: Any) -> Outcome:
    """Return the losses of the first batch, with parts of it replaced."""
    batch = module.data.train_loader().dataset[module.data.order.batch(0)]
    batch = batch._replace(windows=batch.windows._replace(**changes))
    torch.manual_seed(seed)
    return module.losses(batch, None)


def weights(module: TrainingModule) -> list[torch.nn.Parameter]:
    """Return what is trained."""
    return [p for p in module.objective.parameters() if p.requires_grad]


def gradient(loss: Tensor, module: TrainingModule) -> Tensor:
    """Return the gradient of a loss as one vector."""
    parts = torch.autograd.grad(loss, weights(module), allow_unused=True, retain_graph=True)
    return torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten()
                      for g, p in zip(parts, weights(module))])


def test_every_configured_loss_is_produced(module: TrainingModule) -> None:
    """Nothing that is weighted is missing, and nothing else is there."""
    assert set(outcome(module).terms) == set(LOSSES)


@pytest.mark.parametrize('name', LOSSES)
def test_a_loss_falls_on_one_overfitted_batch(module: TrainingModule, name: str) -> None:
    """Each loss alone can be learned by the weights that it reaches."""
    before = {k: v.clone() for k, v in module.objective.state_dict().items()}
    optimiser = torch.optim.Adam(weights(module), lr=0.02)
    history = []
    for _ in range(14):
        loss = outcome(module).terms[name].value
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(loss.item())
    module.objective.load_state_dict(before)
    assert history[-1] < 0.9 * history[0], history


@pytest.mark.parametrize('name', RATIOS)
def test_a_ratio_scales_the_gradient_of_its_loss(module: TrainingModule, name: str) -> None:
    """Twice the ratio is twice the part of the gradient."""
    terms = outcome(module).terms
    doubled = {**terms, name: terms[name]._replace(ratio=2 * terms[name].ratio)}
    assert terms[name].ratio > 0
    added = gradient(total(doubled), module) - gradient(total(terms), module)
    alone = terms[name].ratio * gradient(terms[name].value, module)
    assert alone.norm() > 0
    torch.testing.assert_close(added, alone, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize('name', RATIOS)
def test_a_ratio_of_the_configuration_reaches_its_term(module: TrainingModule, name: str,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """The key that docs name is the weight that is used."""
    chosen = config.plain(module.objective.config) | {RATIOS[name]: 0.375}
    monkeypatch.setattr(module.objective, 'config', config.parse(LossConfig, chosen, 'test'))
    assert outcome(module).terms[name].ratio == 0.375


def test_masked_entries_change_no_loss_and_no_gradient(module: TrainingModule) -> None:
    """Labels and frames after an episode's end are whatever lies there; nothing sees them."""
    clean = outcome(module)
    batch = module.data.train_loader().dataset[module.data.order.batch(0)].windows
    valid = batch.valid_BTK
    assert not valid.all()
    arm = torch.where(valid[..., None], batch.continuous_BTKC, torch.tensor(77.0))
    gripper = torch.where(valid[..., None], batch.binary_BTKG, 1 - batch.binary_BTKG)
    frames = module.config.losses.forward.frames
    exists = valid[..., 1:frames + 1][..., None, None, None]
    future = {name: torch.where(exists, value, 255 - value)
              for name, value in batch.future_images.items()}
    changed = outcome(module, continuous_BTKC=arm, binary_BTKG=gripper, future_images=future)
    for name, term in clean.terms.items():
        assert term.value.equal(changed.terms[name].value), name
    assert gradient(total(clean.terms), module).equal(gradient(total(changed.terms), module))


def test_padding_of_texts_changes_no_loss(module: TrainingModule) -> None:
    """Word losses count the words that there are."""
    from ros2_lstm_policy.model.backbones.base import TextTokens
    from ros2_lstm_policy.training.auxiliary.language import language_loss
    text = module.objective.policy.backbone.tokenize(['go left', 'pick up the red block there'])
    logits = torch.randn(2, text.ids_BN.shape[1] - 1, 50)
    ids = text.ids_BN % 50
    other = torch.where(text.mask_BN, ids, 7)
    assert not text.mask_BN.all()
    assert language_loss(logits, TextTokens(ids, text.mask_BN)).equal(
        language_loss(logits, TextTokens(other, text.mask_BN)))


def test_the_latent_adds_nothing_when_acting(module: TrainingModule) -> None:
    """A policy trained with a latent acts without its labels: z is the prior's mean."""
    module.eval()
    try:
        assert 'kl' not in outcome(module).terms
        losses = [outcome(module, seed).terms['arm'].value for seed in (0, 1)]
        assert losses[0].equal(losses[1])
    finally:
        module.train()


@pytest.mark.parametrize('run_name', ['train', 'train_nomask'])
def test_the_total_agrees_with_the_reference_trainer(run_name: str) -> None:
    """Arm plus 0.01 gripper, on the reference's own predictions, labels and mask."""
    given = np.load(GOLDEN / 'robokosmos_tiny.inputs.npz')
    wanted = np.load(GOLDEN / 'robokosmos_tiny.outputs.npz')
    chunk = ActionChunk(torch.from_numpy(wanted['train/pred_arm']),
                        torch.from_numpy(wanted['train/pred_gripper_logit']))
    mask = torch.from_numpy(given['chunck_mask']) if run_name == 'train' else None
    action = torch.from_numpy(given['action'])
    loss = action_loss(chunk, action[..., :6], action[..., 6:], mask)
    terms = {'arm': Term(loss.arm, 1.0, torch.tensor(1)),
             'gripper': Term(loss.gripper, LossConfig().arm_gripper_loss_ratio, torch.tensor(1))}
    for name, value in (('loss', total(terms)), ('loss_arm_act', loss.arm),
                        ('loss_gripper_act', loss.gripper),
                        ('acc_gripper_act', loss.gripper_accuracy)):
        assert float(value) == pytest.approx(float(wanted[f'{run_name}/trainer_{name}']), abs=1e-6)


@pytest.mark.parametrize(('values', 'wanted'), [
    ({'cap_loss_ratio': 0.1}, 'caption: true'),
    ({'kl_div_ratio': 0.1}, 'latent'),
    ({'vl_cotrain_ratio': 0.1}, 'cotrain'),
    ({'fwd_loss_ratio': 0.1, 'forward': {'cameras': []}}, 'forward.cameras'),
    ({'arm_gripper_loss_ratio': -1.0}, 'must not be negative'),
])
def test_a_ratio_without_its_loss_is_refused(values: dict, wanted: str) -> None:
    """A weight that weighs nothing is a mistake that would cost a training run."""
    with pytest.raises(config.ConfigError, match=wanted):
        config.parse(LossConfig, values, 'train.yaml: losses')
