"""Two processes train as one: the same losses and weights for the same global batch."""

from __future__ import annotations

import csv
import os
from pathlib import Path
import subprocess
import sys

import numpy as np
from ros2_lstm_policy.data.order import BatchOrder, Share, Stream
from ros2_lstm_policy.training import run, tuning
import torch
from training_data import configured, values, write_store
import yaml

ROOT = Path(__file__).resolve().parents[1]
SAME = ('policy.backbone.options.dropout=0.0', 'augmentation={static_shift: 0, hand_shift: 0}',
        'losses.fwd_loss_ratio=0.1', 'losses.caption=true', 'engine.strategy=ddp',
        'ema_decay=0')


def losses(output: Path) -> np.ndarray:
    """Return the numbers of the curves."""
    with (output / 'logs' / 'part_0' / 'metrics.csv').open() as file:
        return np.array([[float(row[name] or 0) for name in sorted(row) if name != 'elapsed_s']
                         for row in csv.DictReader(file)])


def test_two_processes_equal_one_with_the_same_global_batch(tmp_path: Path) -> None:
    """
    Episodes end inside windows, so the two processes have different numbers of valid entries.

    A mean of the processes' means would differ; each is weighed by what it counted.
    """
    torch.set_num_threads(1)
    write_store(tmp_path / 'store', episodes=6, steps=5)
    settings = values(tmp_path / 'two', tmp_path / 'store', 3)
    (tmp_path / 'train.yaml').write_text(yaml.safe_dump(settings))
    environment = os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    process = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2',
         '-m', 'ros2_lstm_policy.training.cli', '--config', str(tmp_path / 'train.yaml'),
         'engine.devices=2', *SAME], env=environment, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr[-3000:]
    one = configured(settings, *SAME, 'data.loader.batch_size=4', f'output={tmp_path / "one"}',
                     'engine.strategy=auto')
    run.fit(one)
    np.testing.assert_allclose(losses(tmp_path / 'two'), losses(tmp_path / 'one'), rtol=2e-4,
                               atol=1e-6)


def test_processes_share_every_global_batch_without_overlap() -> None:
    """One epoch holds every window once, whoever takes it."""
    stream = Stream(24, seed=3)
    orders = [BatchOrder(np.arange(100, 124), stream, 2, Share(rank, 3)) for rank in range(3)]
    taken = np.concatenate([order.batch(number)[0] for number in range(4) for order in orders])
    assert sorted(taken) == list(range(100, 124))
    alone = BatchOrder(np.arange(100, 124), stream, 6, Share())
    np.testing.assert_array_equal(taken, np.concatenate([alone.batch(n)[0] for n in range(4)]))


def test_sources_are_drawn_by_their_weights() -> None:
    """A small source with a large weight is seen as often as it says."""
    sources = np.array([0] * 900 + [1] * 100)
    drawn = Stream(1000, 0, sources, (1.0, 3.0)).take(0, 4000)
    assert abs((sources[drawn] == 1).mean() - 0.75) < 0.03


def test_fsdp_shards_large_layers_and_nothing_that_is_called_in_parts() -> None:
    """A module whose methods are called apart must not be gathered at its forward pass alone."""
    model = torch.nn.ModuleDict({
        'layers': torch.nn.ModuleList([torch.nn.Linear(1000, 1001), torch.nn.Linear(2, 2)]),
        'head': torch.nn.Linear(1000, 1001)})
    pieces = tuning.Pieces()
    pieces.find(model)  # type: ignore[arg-type]
    sharded = [name for name, module in model.named_modules() if pieces(module, False, 0)]
    assert sharded == ['layers.0']
    assert all(pieces(module, True, 0) for module in model.modules())
