"""Steps that decide weigh more, and forget gates that keep: what helps a memory to be learned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from ros2_lstm_policy.config import ConfigError
from ros2_lstm_policy.data.deciding import DecidingConfig, step_weights
from ros2_lstm_policy.data.store import FrameStore, StoreWriter
from ros2_lstm_policy.manifest import ActionGroup, Manifest, Normalisation
from ros2_lstm_policy.model.losses import action_loss
from ros2_lstm_policy.training import run
from ros2_lstm_policy.types import ActionChunk, Episode
import torch
from training_data import cameras, configured, values, write_store

PERIOD_S = 0.1
DECIDING = DecidingConfig(weight=5.0, after_s=0.4, for_s=0.3)


def body(kind: str) -> Manifest:
    """Return a body of two joints and a gripper whose largest step is 1."""
    joints = ActionGroup('joints', kind, 2, Normalisation.unit(2), names=('a', 'b'),
                         largest=(1.0, 1.0))
    return Manifest(PERIOD_S, cameras(8)[:1],
                    (joints, ActionGroup('gripper', 'gripper', 1, binary=True)))


def written(path: Path, manifest: Manifest, episodes: Sequence[Sequence[float]],
            grippers: Sequence[Sequence[float]] = ()) -> FrameStore:
    """Write episodes whose first joint does this."""
    writer = StoreWriter(path, manifest)
    for number, first in enumerate(episodes):
        joints = np.stack([first, np.zeros(len(first))], 1).astype(np.float32)
        gripper = np.array(grippers[number] if grippers else [1.0] * len(first), np.float32)
        writer.append(Episode(
            f'episode_{number}', 'go', np.arange(len(first), dtype=np.int64) * 100_000_000,
            {'static': np.zeros((len(first), 8, 8, 3), np.uint8)},
            {'joints': joints, 'gripper': gripper[:, None]}))
    return writer.close()


STANDS, MOVES = [0.0] * 5, [0.5] * 4


def test_steps_right_after_a_standstill_weigh_more(tmp_path: Path) -> None:
    """Long enough a standstill, within one episode; what trembles below a hundredth is still."""
    manifest = body('joint_delta')
    first = [*STANDS, *MOVES, 0.0, 0.0, *MOVES, 0.004, *STANDS, 0.5]
    store = written(tmp_path / 'store', manifest, [first, MOVES])
    wanted = np.ones(len(first) + 4)
    wanted[[5, 6, 7, 21]] = 5
    assert step_weights(store, manifest, DECIDING).tolist() == wanted.tolist()


def test_what_says_where_to_be_moves_by_its_changes(tmp_path: Path) -> None:
    """A joint that is told to stay at half a radian stands still."""
    manifest = body('joint_position')
    store = written(tmp_path / 'store', manifest, [[0.5] * 5 + [0.8] + [0.8] * 5])
    assert np.flatnonzero(step_weights(store, manifest, DECIDING) > 1).tolist() == [5, 6, 7]


def test_a_gripper_that_closes_ends_a_standstill(tmp_path: Path) -> None:
    """It moves while the arm waits."""
    manifest = body('joint_delta')
    store = written(tmp_path / 'store', manifest, [[0.0] * 10], [[1.0] * 6 + [0.0] * 4])
    assert np.flatnonzero(step_weights(store, manifest, DECIDING) > 1).tolist() == [6, 7, 8]


def test_weights_change_the_mean_and_padding_does_not() -> None:
    """A mean over what the steps weigh, of those that exist."""
    torch.manual_seed(0)
    chunk = ActionChunk(torch.rand(2, 3, 2, 4), torch.randn(2, 3, 2, 1))
    labels = torch.rand(2, 3, 2, 4), torch.ones(2, 3, 2, 1)
    valid = torch.tensor([[[1, 1], [1, 1], [1, 0]], [[1, 1], [0, 0], [0, 0]]], dtype=torch.bool)
    weights = torch.tensor([[1.0, 5.0, 1.0], [1.0, 9.0, 9.0]])
    found = action_loss(chunk, *labels, valid, weights)
    each = torch.nn.functional.huber_loss(chunk[0], labels[0], reduction='none').mean(-1)
    shares = weights[..., None] * valid
    torch.testing.assert_close(found.arm, (each * shares).sum() / shares.sum())
    plain = action_loss(chunk, *labels, valid)
    alike = action_loss(chunk, *labels, valid, torch.full((2, 3), 7.0))
    torch.testing.assert_close(alike.arm, plain.arm)
    torch.testing.assert_close(alike.gripper, plain.gripper)
    assert float(found.gripper_accuracy) == float(plain.gripper_accuracy)
    assert float(action_loss(chunk, *labels, valid & False, weights).arm) == 0


@pytest.mark.parametrize('history', ['window', 'carry'])
def test_a_run_says_how_much_decides(tmp_path: Path, history: str) -> None:
    """From a configuration to the losses; the gripper of this store closes half way."""
    torch.set_num_threads(1)
    write_store(tmp_path / 'store', episodes=4, steps=12)
    said: list[str] = []
    still = ('losses.deciding={after_s: 0.3}', f'policy.decoder.history={history}')
    with pytest.raises(ValueError, match='in no episode to train on does the robot set out'):
        run.assemble(configured(values(tmp_path / 'run', tmp_path / 'store'), *still),
                     tell=said.append)
    write_store(tmp_path / 'waits', episodes=4, steps=12, reach=0.0, turn=0.0)
    run.fit(configured(values(tmp_path / 'run', tmp_path / 'waits', 1), *still))
    module = run.assemble(configured(values(tmp_path / 'run', tmp_path / 'waits'), *still),
                          tell=said.append)
    assert any('deciding steps: 50.0% of those to train on; each weighs 5' in s for s in said)
    batch = module.data.train_loader().dataset[module.data.order.batch(0)]
    assert set(batch.weights_BT.unique().tolist()) <= {1.0, 5.0}


def test_forget_gates_begin_as_the_longest_gap_wants(tmp_path: Path) -> None:
    """Cells that keep for 1 to 600 steps, and of which as much is left after as many."""
    torch.set_num_threads(1)
    write_store(tmp_path / 'store', episodes=4, steps=6)
    chosen = values(tmp_path / 'run', tmp_path / 'store')
    chosen['policy']['decoder']['hidden_size'] = 64
    rnn = run.assemble(configured(chosen, 'policy.decoder.history=carry',
                                  'recurrence.chrono=600'),
                       tell=lambda line: None).objective.policy.decoder.rnn
    input_gate, forget_gate, *_ = (rnn.bias_ih_l0 + rnn.bias_hh_l0).detach().chunk(4)
    kept_steps = 1 / (1 - forget_gate.sigmoid())
    assert kept_steps.min() >= 2
    assert 300 < kept_steps.max() <= 600
    assert input_gate.equal(-forget_gate)
    with pytest.raises(ConfigError, match='chrono says how a new LSTM begins'):
        configured(chosen, 'policy.decoder.history=carry', 'recurrence.chrono=600',
                   f'init_from={tmp_path}')
    configured(chosen, 'policy.decoder.history=carry', 'recurrence.chrono=600',
               f'init_from={tmp_path}', 'init_strict=false')  # the LSTM may begin anew
    with pytest.raises(ConfigError, match='chrono must be 0, or at least 3'):
        configured(chosen, 'policy.decoder.history=carry', 'recurrence.chrono=-1')
