"""Two processes train as one: the same losses and weights for the same global batch."""

from __future__ import annotations

from collections import Counter
import csv
import json
import os
from pathlib import Path
import socket
import subprocess
import sys

import numpy as np
from ros2_lstm_policy.data.sampler import BatchOrder, Share, Stream
from ros2_lstm_policy.training import run, tuning
from ros2_lstm_policy.training.agreement import Agreement, News
import torch
from training_data import configured, values, write_store
import yaml

ROOT = Path(__file__).resolve().parents[1]
SAME = ('policy.backbone.options.dropout=0.0', 'augmentation={static_shift: 0, hand_shift: 0}',
        'losses.fwd_loss_ratio=0.1', 'losses.caption=true', 'engine.strategy=ddp',
        'ema_decay=0')
EXCHANGE = """
import json
from ros2_lstm_policy.training.agreement import Agreement
from torch import distributed
distributed.init_process_group('gloo')
rank, agreement = distributed.get_rank(), Agreement(2)
print(json.dumps([agreement.exchange(rank == 1 and batch == 2, 10.0 * batch + 1000 * rank)
                  for batch in range(5)]))
agreement.finish()
"""


def losses(output: Path) -> np.ndarray:
    """Return the numbers of the curves."""
    with (output / 'logs' / 'part_0' / 'metrics.csv').open() as file:
        return np.array([[float(row[name] or 0) for name in sorted(row) if name != 'elapsed_s']
                         for row in csv.DictReader(file)])


def two_processes(tmp_path: Path, program: list[str], *overrides: str) -> None:
    """Run a program that trains, in two processes that share a step by gloo."""
    environment = os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    process = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2',
         *program, '--config', str(tmp_path / 'train.yaml'), 'engine.devices=2', *overrides],
        env=environment, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr[-3000:]


def test_two_processes_equal_one_with_the_same_global_batch(tmp_path: Path) -> None:
    """
    Episodes end inside windows, so the two processes have different numbers of valid entries.

    A mean of the processes' means would differ; each is weighed by what it counted.
    """
    torch.set_num_threads(1)
    write_store(tmp_path / 'store', episodes=6, steps=5)
    settings = values(tmp_path / 'two', tmp_path / 'store', 3)
    (tmp_path / 'train.yaml').write_text(yaml.safe_dump(settings))
    two_processes(tmp_path, ['-m', 'ros2_lstm_policy.training.cli'], *SAME)
    one = configured(settings, *SAME, 'data.loader.batch_size=4', f'output={tmp_path / "one"}',
                     'engine.strategy=auto')
    run.fit(one)
    np.testing.assert_allclose(losses(tmp_path / 'two'), losses(tmp_path / 'one'), rtol=2e-4,
                               atol=1e-6)


def test_no_batch_waits_for_what_the_processes_tell_each_other(tmp_path: Path) -> None:
    """
    A host that waits for a collective on GPUs lets them run dry until it has issued new work.

    So in each batch there are only reductions, of which none is waited for: of gradients, of the
    numbers of valid entries, and of what the processes agree on. A run's start and end alone have
    barriers and broadcasts.
    """
    steps = 24
    write_store(tmp_path / 'store', episodes=6, steps=5)
    settings = values(tmp_path / 'run', tmp_path / 'store', steps)
    (tmp_path / 'train.yaml').write_text(yaml.safe_dump(settings))
    counts = tmp_path / 'counts.json'
    two_processes(tmp_path, [str(ROOT / 'test' / 'profiled_train.py'), str(counts)],
                  'optimiser.accumulate=1', 'engine.strategy=ddp', 'validation.every_steps=1000',
                  'engine.save_every_steps=1000', 'engine.log_every_steps=1000')
    issued = Counter(json.loads(counts.read_text()))
    reductions = issued.pop('c10d::allreduce_')
    assert reductions >= 3 * steps
    assert issued.total() < steps, issued


def test_a_stop_that_one_process_is_asked_for_reaches_all_at_the_same_batch() -> None:
    """And all go by the first one's clock: what one says at a batch all read at the next."""
    with socket.create_server(('127.0.0.1', 0)) as found:
        port = str(found.getsockname()[1])
    processes = [subprocess.Popen(
        [sys.executable, '-c', EXCHANGE], text=True, stdout=subprocess.PIPE,
        env=os.environ | {'PYTHONPATH': str(ROOT), 'RANK': str(rank), 'WORLD_SIZE': '2',
                          'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': port})
        for rank in range(2)]
    heard = [process.communicate(timeout=120)[0] for process in processes]
    wanted = [[False, 0.0], [False, 0.0], [False, 10.0], [True, 20.0], [False, 30.0]]
    assert [json.loads(text) for text in heard] == [wanted, wanted]


def test_a_process_alone_reads_what_it_says_itself() -> None:
    """No batch late, and with no other process to find."""
    agreement = Agreement(processes=1)
    assert agreement.exchange(True, 5.0) == News(True, 5.0)
    assert agreement.exchange(False, 6.0) == News(False, 6.0)
    agreement.finish()


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
