"""What goes wrong in a run is named, and nothing that was saved is lost."""

from __future__ import annotations

from collections.abc import Callable
import os
from pathlib import Path
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from ros2_lstm_policy.model import checkpoint
from ros2_lstm_policy.training import cli, run
from ros2_lstm_policy.training.callbacks import Keeper, LAST, STATE
from ros2_lstm_policy.training.module import TrainingModule
import torch
from training_data import values, write_store
import yaml

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a configuration, its store and a finished run of one step."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp('failures')
    write_store(folder / 'store', episodes=6, steps=6)
    settings = values(folder / 'run', folder / 'store', 1)
    (folder / 'train.yaml').write_text(yaml.safe_dump(settings))
    assert cli.main(['--config', str(folder / 'train.yaml')]) == cli.DONE
    return folder


def train(folder: Path, *overrides: str) -> int:
    """Run the command on that configuration."""
    return cli.main(['--config', str(folder / 'train.yaml'), *overrides])


@pytest.mark.parametrize(('overrides', 'wanted'), [
    (['optimiser.learning_rate=1'], "unknown key 'learning_rate'"),
    (['schedule.max_steps=soon'], 'max_steps: expected int'),
    (['schedule.max_steps=null'], 'set at least one of max_steps'),
    (['losses.kl_div_ratio=0.1'], 'kl_div_ratio'),
    (['losses.fwd_loss_ratio=0.1', 'losses.forward.frames=9'], 'must be below the chunk'),
    (['policy.backbone.options.colour=1'], "unknown key 'colour'"),
    (['tune.freeze=[nothing*]'], 'matches nothing'),
    (['tune.lora={}'], 'needs a language model'),
    (['tune.last_n_layers=9'], '9 were asked for'),
    (['optimiser.groups=[{match: nothing}]'], 'matches no trained parameter'),
    (['data.sources=[{path: x}]'], 'set either sources or store'),
    (['losses.cotrain={path: nowhere}'], 'metadata.jsonl'),
    (['init_from=nowhere'], 'is missing'),
])
def test_a_bad_configuration_is_refused_by_name(trained: Path, overrides: list[str],
                                                wanted: str, capsys: pytest.CaptureFixture[str],
                                                tmp_path: Path) -> None:
    """The key and what to do, and no run directory is left behind."""
    status = train(trained, f'output={tmp_path / "out"}', *overrides)
    assert status == cli.BAD_INPUT
    assert wanted in capsys.readouterr().err
    assert not (tmp_path / 'out' / LAST).exists()


def _pointer(path: Path) -> None:
    path.write_text('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n')


def _foreign(path: Path) -> None:
    torch.save({'state_dict': {'a': torch.zeros(1)}, 'epoch': 1, 'global_step': 1}, path)


def _other_network(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    name = next(name for name in state['state_dict'] if name.endswith('rnn.weight_hh_l0'))
    state['state_dict'][name] = torch.zeros(2, 2)
    torch.save(state, path)


def _other_optimiser(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    state['optimizer_states'][0]['param_groups'] = []
    torch.save(state, path)


def _code(path: Path) -> None:
    path.write_bytes(pickle.dumps({'state_dict': Path}))


@pytest.mark.parametrize(('spoil', 'said'), [
    (lambda path: path.write_bytes(path.read_bytes()[:path.stat().st_size // 2]), 'cut off'),
    (lambda path: path.write_bytes(b''), '0 bytes are no whole state'),
    (_pointer, 'git lfs pull'), (_code, 'no archive of torch'),
    (_foreign, 'found state_dict, epoch, global_step'),
    (_other_network, 'rnn.weight_hh_l0: found shape (2, 2)'),
    (_other_optimiser, 'cannot be taken up'),
    (lambda path: path.unlink(), 'there is no state to go on from')])
def test_a_damaged_state_is_one_line_that_names_it(
        trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
        spoil: Callable[[Path], Any], said: str) -> None:
    """Each was a traceback after the data had been opened, and none named a file."""
    copied = Path(shutil.copytree(trained / 'run', tmp_path / 'run'))
    spoil(copied / STATE)
    capsys.readouterr()
    assert cli.main(['--resume', str(copied), 'schedule.max_steps=9']) == cli.BAD_INPUT
    error = capsys.readouterr().err
    line, = [line for line in error.splitlines() if line.startswith('train: ')]
    assert line.startswith(f'train: {copied / STATE}: ') and said in line, error
    assert 'Traceback' not in error
    assert checkpoint.load(copied / LAST)


def test_a_damaged_state_is_told_before_data_are_opened(
        trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Opening hours of recordings takes minutes."""
    copied = Path(shutil.copytree(trained / 'run', tmp_path / 'run'))
    _other_network(copied / STATE)
    overrides = ['schedule.max_steps=9', f'data.store={tmp_path / "nowhere"}']
    assert cli.main(['--resume', str(copied), *overrides]) == cli.BAD_INPUT
    assert STATE in capsys.readouterr().err


def test_what_resume_advises_works(trained: Path, tmp_path: Path,
                                   capsys: pytest.CaptureFixture[str]) -> None:
    """It advised an init_from that was refused, though no weight depends on the window."""
    run_ = trained / 'run'
    change = 'policy.decoder.window_size=4'
    assert cli.main(['--resume', str(run_), change]) == cli.BAD_INPUT
    advised = capsys.readouterr().err.split('start a new run: train ')[1].split(', with')[0]
    words = advised.replace('output=NEW', f'output={tmp_path / "new"}').split()
    assert f'init_from={run_ / LAST}' in words
    assert cli.main([*words, change]) == cli.DONE
    new = checkpoint.load(tmp_path / 'new' / LAST)
    assert new.config.decoder.window_size == 4
    capsys.readouterr()
    assert cli.main(['--resume', str(run_), 'policy.decoder.hidden_size=8']) == cli.BAD_INPUT
    assert 'init_from' not in capsys.readouterr().err  # its weights would not fit


def test_a_log_file_holds_lines_and_what_comes_next(
        trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bar filled the file with redrawings, and the end named no checkpoint."""
    assert train(trained, f'output={tmp_path / "out"}', 'schedule.max_steps=3') == cli.DONE
    told = capsys.readouterr()
    assert '\r' not in told.err and 'it/s' not in told.err
    assert 'step 3 of 3' in told.err.splitlines()[-1]
    for wanted in (str(tmp_path / 'out' / LAST), 'evaluate --config', 'policy.launch.py'):
        assert wanted in told.out


def test_an_interval_leaves_a_policy_that_acts_before_any_validation(
        trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was stopped in its first hour left nothing that a robot could try."""
    monkeypatch.setattr(Keeper, 'on_validation_end', lambda *_: pytest.fail('validated'))
    seen = []
    export = Keeper._export

    def exported(self: Keeper, trainer: Any, names: tuple[str, ...]) -> None:
        export(self, trainer, names)
        seen.append((trainer.global_step, names))
        if len(seen) == 1:
            os.kill(os.getpid(), signal.SIGINT)  # the second one is after its answer
    monkeypatch.setattr(Keeper, '_export', exported)
    status = train(trained, f'output={tmp_path / "out"}', 'schedule.max_steps=9',
                   'validation.every_steps=1000', 'engine.save_every_steps=2')
    assert status == cli.INTERRUPTED
    assert seen[0] == (2, (LAST,))
    assert checkpoint.load(tmp_path / 'out' / LAST)


def test_a_bad_configuration_fails_before_data_is_read(trained: Path,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    """The model is built first; a store that is not there is not even looked for."""
    assert train(trained, 'data.store=nowhere', 'tune.freeze=[nothing*]') == cli.BAD_INPUT
    assert 'nowhere' not in capsys.readouterr().err


def test_a_run_is_not_overwritten(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Starting again where a run lies would lose it."""
    assert train(trained) == cli.BAD_INPUT
    assert 'holds a run already' in capsys.readouterr().err


def test_resume_refuses_another_architecture(trained: Path,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    """The state of one model is none of another; the key is named."""
    status = cli.main(['--resume', str(trained / 'run'), 'policy.decoder.hidden_size=8'])
    assert status == cli.BAD_INPUT
    assert 'decoder.hidden_size is 16, wanted 8' in capsys.readouterr().err


def test_a_checkpoint_of_another_architecture_is_no_start(
        trained: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`init_from` says which keys differ."""
    status = train(trained, f'output={tmp_path}', f'init_from={trained / "run" / LAST}',
                   'policy.decoder.hidden_size=8')
    assert status == cli.BAD_INPUT
    assert 'decoder.hidden_size is 16, wanted 8' in capsys.readouterr().err


def test_a_run_starts_from_a_checkpoint(trained: Path, tmp_path: Path) -> None:
    """The weights are those of the checkpoint until the first step."""
    from training_data import configured
    settings = values(tmp_path, trained / 'store')
    module = run.assemble(configured(settings, f'init_from={trained / "run" / LAST}'),
                          tell=lambda line: None)
    kept = checkpoint.load(trained / 'run' / LAST).state_dict()
    for name, value in module.objective.policy.state_dict().items():
        assert value.equal(kept[name]), name


def test_a_loss_that_is_not_finite_stops_and_names_the_episodes(
        trained: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """One label of infinity, in one episode; nothing is saved after it."""
    store = tmp_path / 'store'
    write_store(store, episodes=6, steps=6)
    gripper = np.fromfile(store / 'action.gripper.f32', np.float32)
    gripper[:6] = np.inf  # episode_0
    gripper.tofile(store / 'action.gripper.f32')
    status = train(trained, f'output={tmp_path / "out"}', f'data.store={store}',
                   'schedule.max_steps=20', 'validation.every_steps=100')
    message = capsys.readouterr().err
    assert status == cli.FAILED
    assert 'episode_0' in message
    assert 'NaN or infinite' in message
    if (tmp_path / 'out' / STATE).exists():
        state = torch.load(tmp_path / 'out' / STATE, weights_only=True)['state_dict']
        assert all(value.isfinite().all() for value in state.values())


def test_a_full_disk_keeps_the_previous_checkpoint_whole(trained: Path, tmp_path: Path) -> None:
    """The system refuses files above 2 MB, as a full disk would refuse the rest of one."""
    before = checkpoint.fingerprint(trained / 'run' / LAST)
    state = (trained / 'run' / STATE).read_bytes()

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

    process = command(trained, ['--resume', str(trained / 'run'), 'schedule.max_steps=3'],
                      preexec_fn=small_files)
    _, message = process.communicate(timeout=120)
    assert process.returncode == cli.FAILED, message[-2000:]
    assert 'could not be written' in message and 'the one before is whole' in message
    assert checkpoint.fingerprint(trained / 'run' / LAST) == before
    assert (trained / 'run' / STATE).read_bytes() == state
    assert not list((trained / 'run').glob('**/*.partial'))


def test_ctrl_c_saves_and_says_how_to_resume(trained: Path, tmp_path: Path) -> None:
    """The first Ctrl-C ends the step, saves the state and names the command that goes on."""
    process = command(trained, ['--config', str(trained / 'train.yaml'),
                                f'output={tmp_path}', 'schedule.max_steps=100000',
                                'validation.every_steps=100000', 'engine.save_every_steps=100000'])
    curve = tmp_path / 'logs' / 'part_0' / 'metrics.csv'
    deadline = time.monotonic() + 120
    while not curve.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=120)
    assert process.returncode == cli.INTERRUPTED, message[-2000:]
    assert f'train --resume {tmp_path}' in message
    step = torch.load(tmp_path / STATE, weights_only=True)['global_step']
    assert cli.main(['--resume', str(tmp_path), f'schedule.max_steps={step + 1}']) == cli.DONE


def command(folder: Path, arguments: list[str], **more: object) -> subprocess.Popen[str]:
    """Start the command as a process of its own."""
    environment = os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [sys.executable, '-m', 'ros2_lstm_policy.training.cli', *arguments], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **more)


def test_a_batch_that_does_not_fit_says_what_to_lower(
        trained: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimate by part, and the keys that make a step smaller."""
    def too_large(*_: object) -> None:
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')

    monkeypatch.setattr(TrainingModule, 'training_step', too_large)
    assert train(trained, f'output={tmp_path}') == cli.FAILED
    message = capsys.readouterr().err
    for wanted in ('a step needs about', 'activations', 'data.loader.batch_size (now 2)',
                   'optimiser.accumulate (now 2)', 'gradient_checkpointing'):
        assert wanted in message


def test_a_lost_worker_is_explained(trained: Path, capsys: pytest.CaptureFixture[str],
                                    tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that the system kills ends the run with a reason, not with a hang."""
    def killed(self: object, request: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    from ros2_lstm_policy.data.datamodule import WindowSource
    monkeypatch.setattr(WindowSource, '__getitem__', killed)
    assert train(trained, f'output={tmp_path}', 'data.loader.workers=1') == cli.FAILED
    assert 'lower data.loader.workers' in capsys.readouterr().err
