"""The command `evaluate`: resumable, strict, and the same whoever runs it."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from ros2_lstm_policy.evaluation import actors, evaluate, runs, selection
from ros2_lstm_policy.evaluation.evaluate import EvaluateConfig
from ros2_lstm_policy.manifest import DEFAULT_CAMERAS as CAMERAS
from ros2_lstm_policy.model.policy import DecoderConfig
from ros2_lstm_policy.process_pool import MemberLost
from ros2_lstm_policy.sim import benchmarks, resumable
from ros2_lstm_policy.sim.perturb.settings import PerturbConfig
from ros2_lstm_policy.types import Observation

CHECKPOINT = Path(__file__).parents[1] / 'checkpoints' / 'compact_libero'
SMALL = ('image_size=[32, 32]', 'horizon=2', 'processes=1', 'every=25', 'benchmark=a')


def run(folder: Path, *overrides: str) -> int:
    """Run the command with the shipped configuration, made small."""
    config = Path(__file__).parents[1] / 'config' / 'evaluate.yaml'
    return evaluate.main(['--config', str(config), f'output={folder}', *SMALL, *overrides])


def episodes(folder: Path) -> list[dict]:
    """Return the results on disk."""
    return [json.loads(line) for line in (folder / 'episodes.jsonl').read_text().splitlines()]


def test_doing_nothing_never_succeeds_and_the_report_says_so(tmp_path, capsys):
    """The control that every other number is worth something against."""
    assert run(tmp_path, 'actor=zero', 'checkpoint=null', 'pictures=1') == 0
    assert [e['success'] for e in episodes(tmp_path)] == [False, False]
    assert 'Success 0/2' in capsys.readouterr().out
    assert {path.suffix for path in (tmp_path / 'pictures').iterdir()} == {'.png', '.mp4'}


def test_a_memory_task_is_reported_beside_what_chance_gives(tmp_path, capsys):
    """Its horizon begins after cue and gap; its folder keeps to the gap."""
    m1 = ('benchmark=m1', 'gap_s=[0.5, 0.5]', 'every=100')
    expert = ('actor=expert', 'checkpoint=null', 'horizon=100')
    assert run(tmp_path, *m1, *expert) == 0
    (episode,) = episodes(tmp_path)
    assert episode['success'] and 15 < episode['steps'] < 100
    assert 'without memory: 14.3 % (computed)' in capsys.readouterr().out
    assert json.loads((tmp_path / 'report.json').read_text())['chance'] == pytest.approx(1 / 7)
    assert run(tmp_path, *m1[:1], 'gap_s=[1, 1]', *expert) == 1
    assert 'gap_s' in capsys.readouterr().err


def test_an_interrupted_evaluation_goes_on_where_it_was(tmp_path):
    """What has a result is not run again."""
    assert run(tmp_path, 'actor=zero', 'checkpoint=null') == 0
    first, second = episodes(tmp_path)
    torn = json.dumps(first | {'act_ms': 7.0}) + '\n' + json.dumps(second)[:40]
    (tmp_path / 'episodes.jsonl').write_text(torn)
    assert run(tmp_path, 'actor=zero', 'checkpoint=null') == 0
    assert [e['act_ms'] for e in episodes(tmp_path)] == [7.0, second['act_ms']]


@pytest.mark.parametrize(('ending', 'status', 'complaint'), [
    (KeyboardInterrupt(), 130, 'interrupted; the same command goes on'),
    (MemberLost('B/milk/3: was killed'), 1, 'with fewer processes goes on')])
def test_what_ends_an_evaluation_early_says_how_to_go_on(tmp_path, capsys, monkeypatch, ending,
                                                         status, complaint):
    """On one line; a machine out of memory kills one of the processes."""
    def end(*_: object) -> None:
        raise ending

    monkeypatch.setattr(evaluate.runs, 'complete', end)
    assert run(tmp_path, 'actor=zero', 'checkpoint=null') == status
    assert complaint in capsys.readouterr().err


def test_results_of_other_settings_are_not_mixed(tmp_path, capsys):
    """A folder keeps to what it was begun with."""
    assert run(tmp_path, 'actor=zero', 'checkpoint=null', 'every=50') == 0
    assert run(tmp_path, 'actor=zero', 'checkpoint=null', 'every=50', 'horizon=3') == 1
    assert 'begun with other settings' in (error := capsys.readouterr().err)
    assert 'horizon 2 (now 3)' in error


def test_swapped_words_are_followed_where_their_own_object_is_put_away(tmp_path, capsys):
    """The expert follows what is said: a success, and the unsaid object is not touched."""
    assert run(tmp_path, 'actor=expert', 'checkpoint=null', 'control=swapped', 'every=50',
               'horizon=100') == 0
    (episode,) = episodes(tmp_path)
    own = benchmarks.a()[0]
    assert episode['success'] and episode['target'] != own.target
    assert episode['said'] != own.instruction and episode['lifted'] == [episode['target']]
    assert "object of the episode's own words was lifted in 0/1" in capsys.readouterr().out


def test_a_suite_runs_with_its_own_limit_and_says_which_tasks_are_left_out(tmp_path, capsys):
    """`libero_10` ended at the compartment of a caddy; half of a suite looked like the whole."""
    assert run(tmp_path, 'actor=zero', 'checkpoint=null', 'benchmark=libero_10', 'every=50') == 0
    shown = capsys.readouterr()
    assert [e['said'] for e in episodes(tmp_path)][1].endswith('back compartment of the caddy')
    for told in (shown.err, (tmp_path / 'report.md').read_text()):
        assert '2 of 100 episodes are run; of each task that is run, official state 0 of' in told
        assert 'NOT RUN AT ALL: 8 of 10 tasks (libero_10/libero_10/' in told


def test_changed_conditions_are_kept_with_the_results_and_said_in_the_report(tmp_path, capsys):
    """Several axes at once; the same again for a seed, and no folder mixes two."""
    axes = ('perturb.noise=10', 'perturb.typos=2', 'perturb.start_rad=0.1', 'perturb.seed=3',
            'perturb.object_move_m=0.05')
    for folder in ('one', 'two'):
        assert run(tmp_path / folder, 'actor=zero', 'checkpoint=null', *axes) == 0
    first, again = (episodes(tmp_path / folder) for folder in ('one', 'two'))
    assert [e['said'] for e in first] == [e['said'] for e in again]
    assert [e['changes'] for e in first] == [e['changes'] for e in again]
    own = EvaluateConfig(tmp_path, 'a', actor='zero', every=25).own_episodes()
    for result, episode in zip(first, own):
        assert result['said'] != episode.instruction
        assert any(note.startswith('joints moved by') for note in result['changes'])
    text = (tmp_path / 'one' / 'report.md').read_text()
    changed = 'noise 10.0, start_rad 0.1, typos 2, object_move_m 0.05, seed 3'
    assert f'CHANGED CONDITIONS: {changed}' in text
    assert 'The object was moved on the way in 0 of 2 episodes' in text
    assert f'| {own[0].instruction} |' in text, 'two typing errors of one task are one row'
    assert runs.read(tmp_path / 'one').variant == f'perturbed: {changed}'
    assert run(tmp_path / 'one', 'actor=zero', 'checkpoint=null') == 1
    assert 'begun with other settings' in capsys.readouterr().err


def test_the_axes_are_listed_by_help(capsys):
    """With what a strength means."""
    with pytest.raises(SystemExit):
        evaluate.main(['--help'])
    shown = capsys.readouterr().out
    for field in dataclasses.fields(PerturbConfig):
        assert f'perturb.{field.name}' in shown


def test_what_is_left_out_is_said_of_places_without_official_states_as_well():
    """B takes its seven objects in turn: every seventh episode asks for one of them alone."""
    b, a = benchmarks.b(), benchmarks.a()
    assert selection.left_out(b, b) == ''
    assert selection.left_out(b, b[::3]) == (
        '24 of 70 episodes are run; of each task that is run, 3 to 4 of 10 beginnings')
    assert 'NOT RUN AT ALL: 6 of 7 tasks (B/' in selection.left_out(b, b[::7])
    assert 'official states 0, 5 of 10' in (told := selection.left_out(a, a[::5]))
    assert 'NOT RUN' not in told


def test_a_folder_of_an_earlier_version_goes_on(tmp_path):
    """Settings that came later are kept only where they change something."""
    kept = evaluate.kept_settings(EvaluateConfig(tmp_path, 'a', actor='zero'))
    assert set(kept) == {'benchmark', 'actor', 'checkpoint', 'control', 'execute', 'history',
                         'every', 'image_size', 'horizon', 'checkpoint_fingerprint'}
    assert kept['horizon'] == 150
    changed = EvaluateConfig(tmp_path, 'libero_10', states=50, words='file', actor='zero')
    kept = evaluate.kept_settings(changed)
    assert (kept['states'], kept['words'], kept['horizon']) == (50, 'file', 260)


def test_results_of_another_policy_are_not_mixed(tmp_path):
    """A checkpoint that was trained on has the old path and another fingerprint."""
    policy = tmp_path / 'policy'
    policy.mkdir()
    kept = []
    for content in ('one', 'two'):
        (policy / 'config.yaml').write_text(content)
        kept.append(evaluate.kept_settings(EvaluateConfig(tmp_path, 'a', checkpoint=policy)))
    resumable.keep_settings(tmp_path, kept[0])
    resumable.keep_settings(tmp_path, kept[0])
    with pytest.raises(ValueError, match='checkpoint_fingerprint'):
        resumable.keep_settings(tmp_path, kept[1])


@pytest.mark.parametrize(('history', 'rule'), [
    ('window:1', ('window', 1)), ('window:16', ('window', 16)), ('carry', ('carry', 8))])
def test_a_policy_can_be_measured_with_another_history(history, rule):
    """All else stays as it was trained."""
    trained = DecoderConfig(hidden_size=64)
    changed = actors.looking_back(trained, history)
    assert (changed.history, changed.window_size) == rule
    assert dataclasses.replace(changed, history='window', window_size=8) == trained


def test_without_history_a_policy_forgets_each_frame():
    """What it commands for a frame does not depend on those before; by default it does."""
    frames = [Observation(0, {camera: np.full((32, 32, 3), value, np.uint8)
                              for camera in CAMERAS}) for value in (0, 200, 90)]

    def last_command(history: str | None, frames: list[Observation]) -> np.ndarray:
        actor = actors.Policy(CHECKPOINT, 'first', history)
        actor.begin(None)  # type: ignore[arg-type]
        return [actor.act(frame, 'pick up the milk') for frame in frames][-1].action.arm

    assert np.allclose(last_command('window:1', frames), last_command(None, frames[-1:]),
                       atol=1e-6)
    assert not np.allclose(last_command(None, frames), last_command(None, frames[-1:]), atol=1e-4)


@pytest.mark.parametrize(('override', 'complaint'), [
    ('history=window:0', "history: expected 'window:N'"),
    ('benchmark=z', "'z' is no LIBERO suite"), ('benchmark=z', 'c, validation-a, validation-b'),
    ('checkpoint=null', 'needs a checkpoint'),
    ('checkpoint=/nowhere', '/nowhere'),
    ('every=0', 'at least 1'), ('horizon=0', 'at least 1'),
    ('states=5', "benchmark 'a' has its own states"),
    ('benchmark=libero_goal_env', 'not complete in the installed LIBERO'),
    ('words=both', 'expected one of'),
    ('perturb.nois=3', "did you mean 'noise'"), ('perturb.noise=-3', 'noise must be in'),
    ('perturb=noise', 'expected PerturbConfig'),
    ('actor=human', 'expected one of')])
def test_what_cannot_be_measured_is_refused_with_a_reason(tmp_path, capsys, override, complaint):
    """On one line, before a simulator starts."""
    assert run(tmp_path, override) == 1
    assert complaint in capsys.readouterr().err
