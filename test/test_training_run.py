"""Whole training runs on the CPU: what they write, and that a resumed one is the same one."""

from __future__ import annotations

import csv
from pathlib import Path
import shutil

import numpy as np
import pytest
from ros2_lstm_policy import config
from ros2_lstm_policy.model import checkpoint
from ros2_lstm_policy.training import dry_run, run
from ros2_lstm_policy.training.callbacks import BEST, LAST, STATE
from ros2_lstm_policy.training.config import TrainConfig
from ros2_lstm_policy.types import Batch
import torch
from training_data import configured, values, write_store


@pytest.fixture(scope='module')
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small store."""
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp('data') / 'store'
    write_store(path, episodes=6, steps=8)
    return path


@pytest.fixture(scope='module')
def trained(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a run of 4 steps with every loss that needs no extra data."""
    output = tmp_path_factory.mktemp('run')
    run.fit(configured(values(output, store, 4), *EVERY))
    return output


EVERY = ('losses.fwd_loss_ratio=0.1', 'losses.latent={}', 'losses.caption=true')


def rows(output: Path) -> list[dict[str, str]]:
    """Return the curves of all parts of a run."""
    found = []
    for path in sorted(output.glob('logs/part_*/metrics.csv')):
        with path.open() as file:
            found += list(csv.DictReader(file))
    return found


def test_a_run_leaves_checkpoints_curves_and_its_configuration(trained: Path) -> None:
    """What a person needs afterwards is all in the run's directory."""
    for name in (BEST, LAST):
        policy = checkpoint.load(trained / name)
        assert policy.manifest.action('arm').largest is not None
        assert 'Measured success: unknown' in (trained / name / 'README.md').read_text()
    assert list(trained.glob('logs/part_0/events.*'))
    assert (trained / run.USED_CONFIG).is_file()
    logged = rows(trained)
    assert [row['step'] for row in logged if row['loss']] == ['1', '2', '3', '4']
    validated = [row for row in logged if row['val_loss']]
    assert [row['step'] for row in validated] == ['3', '4']
    assert float(validated[-1]['val_swap_ratio']) > 0


def test_a_killed_and_resumed_run_equals_an_unbroken_one(trained: Path, store: Path,
                                                         tmp_path: Path) -> None:
    """Weights, optimiser, average, random state and place in the data all go on."""
    run.fit(configured(values(tmp_path, store, 2), *EVERY))
    run.fit(configured(values(tmp_path, store, 4), *EVERY), resume=True)
    one, two = (torch.load(path / STATE, weights_only=True) for path in (trained, tmp_path))
    assert one['global_step'] == two['global_step'] == 4
    for name, value in one['state_dict'].items():
        assert value.equal(two['state_dict'][name]), name
    kept = [next(v for k, v in state['callbacks'].items() if 'Keeper' in k)
            for state in (one, two)]
    for mine, other in zip(kept[0]['average']['average'], kept[1]['average']['average']):
        assert mine.equal(other)
    assert kept[0]['batches'] == kept[1]['batches'] == 8
    losses = [[row['loss'] for row in rows(path) if row['loss']] for path in (trained, tmp_path)]
    assert losses[0] == losses[1]


def test_a_resumed_run_keeps_its_normalisation_when_the_data_grows(trained: Path,
                                                                   tmp_path: Path) -> None:
    """
    Statistics belong to the policy, not to the data of the day.

    A run that went on with more demonstrations computed new ones, and its labels moved under it.
    """
    shutil.copytree(trained, tmp_path / 'run')
    write_store(tmp_path / 'more', episodes=8, steps=8, reach=0.1)
    used = tmp_path / 'run' / run.USED_CONFIG
    wanted = config.load(TrainConfig, used, [f'data.store={tmp_path / "more"}',
                                             'schedule.max_steps=5'])
    before = checkpoint.load(tmp_path / 'run' / LAST).manifest.actions
    run.fit(run.resumed(config.load(TrainConfig, used), wanted, tmp_path / 'run'), resume=True)
    assert checkpoint.load(tmp_path / 'run' / LAST).manifest.actions == before
    assert torch.load(tmp_path / 'run' / STATE, weights_only=True)['global_step'] == 5


def test_a_time_limit_ends_a_run_with_its_checkpoint(store: Path, tmp_path: Path) -> None:
    """Whatever the machine, the run ends on time, at the lowest rate, measured and saved."""
    limits = 'schedule={kind: half-cosine, max_time_s: 1.5, min_lr_scale: 0.1}'
    run.fit(configured(values(tmp_path, store), limits, 'validation.every_steps=1000000'))
    logged = rows(tmp_path)
    assert checkpoint.load(tmp_path / LAST)
    times = [float(row['elapsed_s']) for row in logged if row['loss']]
    longest = max(after - before for before, after in zip([0.0, *times], times))
    assert 1.5 <= times[-1] <= 1.5 + 2 * longest
    assert [bool(row['val_loss']) for row in logged].count(True) == 1
    rates = [float(row['lr']) for row in logged if row['loss']]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.3 * rates[0]


def test_a_resumed_run_goes_by_its_new_learning_rate(trained: Path, tmp_path: Path) -> None:
    """The optimiser's state brings its moments, not its rate."""
    shutil.copytree(trained, tmp_path / 'run')
    used = tmp_path / 'run' / run.USED_CONFIG
    wanted = config.load(TrainConfig, used, ['optimiser.lr=0.003', 'schedule.max_steps=5'])
    run.fit(run.resumed(config.load(TrainConfig, used), wanted, tmp_path / 'run'), resume=True)
    assert float([row for row in rows(tmp_path / 'run') if row['loss']][-1]['lr']) == 0.003


def test_a_step_that_does_not_fit_into_the_gpu_is_told_before_it_is_tried(
        monkeypatch: pytest.MonkeyPatch, store: Path, tmp_path: Path,
        capsys: pytest.CaptureFixture[str]) -> None:
    """The dry run names the largest batch that fits; a GPU is played by its numbers."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    chosen = configured(values(tmp_path / 'run', store), 'engine.accelerator=auto',
                        'data.loader.resident=memory')
    module = run.assemble(chosen, tell=lambda line: None)
    memory = dry_run.estimate_memory(module)
    window = memory.activations / 2
    for needed, said in ((memory.total, 'fits into the GPU'),
                         (memory.total - window / 2, 'data.loader.batch_size from 2 to 1'),
                         (memory.total - 1.5 * window, 'any batch')):
        free = int(needed / (1 - dry_run._SPARE) * 1e9) + 1
        monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda free=free: (free, free))
        dry_run.dry_run(module)
        assert said in capsys.readouterr().out


@pytest.mark.parametrize(('free', 'said'), [
    (141.0, 'memory: fits'), (84.0, 'memory: fits'), (64.0, 'batch_size from 4 to 2')])
def test_what_kosmos_2_needs_is_held_against_gpus_that_there_are(free: float, said: str) -> None:
    """The estimate's parts at full size and batch 4, in which a step without average took 68."""
    kosmos = dry_run.Memory(10.0, 27.3, 33.8, 0.0)
    assert said in f'memory: {dry_run.fitting(kosmos, 4, free)}'


def test_what_autocast_makes_of_weights_is_counted_once_for_any_batch(
        store: Path, tmp_path: Path) -> None:
    """A large model's rounded weights are gigabytes; times the batch they are none there are."""
    def kept(*overrides: str) -> dry_run.Kept:
        module = run.assemble(configured(values(tmp_path, store), *overrides),
                              tell=lambda line: None)
        return dry_run.kept_bytes(module, dry_run._first(dry_run.first_batch(module.data)))
    assert kept('engine.precision=fp32').copies == 0
    rounded = kept('engine.precision=bf16')
    module = run.assemble(configured(values(tmp_path, store)), tell=lambda line: None)
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    assert 0 < rounded.copies <= 2 * trained


def test_the_picture_of_the_first_batch_shows_its_labels(store: Path, tmp_path: Path) -> None:
    """Images and words alone hide a gripper the wrong way round and an axis that is another."""
    module = run.assemble(configured(values(tmp_path, store)), tell=lambda line: None)
    batch = dry_run.first_batch(module.data)

    def drawn(windows: Batch) -> np.ndarray:
        torch.manual_seed(0)  # the augmentation draws
        return np.asarray(dry_run.picture(module, batch._replace(windows=windows)))
    windows = batch.windows
    as_it_is = drawn(windows)
    other_way = windows._replace(binary_BTKG=1 - windows.binary_BTKG)
    mirrored = windows._replace(continuous_BTKC=-windows.continuous_BTKC)
    assert np.array_equal(as_it_is, drawn(windows))
    assert not np.array_equal(as_it_is, drawn(other_way))
    assert not np.array_equal(as_it_is, drawn(mirrored))


@pytest.mark.parametrize(('frames', 'free', 'place'), [
    (10, 100, 'device'), (60, 100, 'memory'), (10**15, 100, 'disk')])
def test_frames_go_where_they_fill_half_at_most(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path, frames: int, free: int,
        place: str) -> None:
    """The nearest place that they fit; a GPU is played by its numbers."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda: (free, free))
    chosen = configured(values(tmp_path / 'run', tmp_path / 'store', 4),
                        'engine.accelerator=auto', 'data.loader.resident=auto')
    assert run._placed(chosen, frames).resident == place
    assert run._placed(configured(values(tmp_path / 'run', tmp_path / 'store', 4),
                                  'data.loader.resident=disk'), frames).resident == 'disk'


@pytest.mark.parametrize(('device', 'override', 'may'), [
    ('cuda', 'optimiser.accumulate=1', True), ('cuda', 'optimiser.accumulate=2', False),
    ('cpu', 'optimiser.accumulate=1', False)])
def test_kernels_are_replayed_only_where_no_gradient_outlives_a_step(
        tmp_path: Path, device: str, override: str, may: bool) -> None:
    """A second forward pass takes the memory of the first one's gradients."""
    config = configured(values(tmp_path / 'run', tmp_path / 'store', 4), override)
    assert run.can_replay(config, torch.device(device)) is may
    sharded = configured(values(tmp_path / 'run', tmp_path / 'store', 4), override,
                         'engine.strategy=fsdp')
    assert not run.can_replay(sharded, torch.device(device))
