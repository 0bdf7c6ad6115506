"""Two ways through an episode are the same only where every command is."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from ros2_lstm_policy.evaluation import controls
from ros2_lstm_policy.evaluation.evaluate import EvaluateConfig
from ros2_lstm_policy.ros.closed_loop import evaluate_nodes
from ros2_lstm_policy.ros.closed_loop.evaluate_nodes import Ending, Pair
from ros2_lstm_policy.ros.closed_loop.observer import EpisodeRecord
from ros2_lstm_policy.ros.sim import parameters
from ros2_lstm_policy.sim import benchmarks

ACTIONS = np.arange(21.0).reshape(3, 7)
CONFIG = Path(__file__).parents[1] / 'config' / 'evaluate.yaml'


def pair(by_actor: Ending) -> Pair:
    """Return an episode in which the nodes did ACTIONS with success."""
    return Pair('A/milk/0', Ending(True, ACTIONS), by_actor)


@pytest.mark.parametrize(('by_actor', 'is_same'), [
    (Ending(True, ACTIONS.copy()), True),
    (Ending(True, ACTIONS + 1e-5), False),
    (Ending(False, ACTIONS), False),
    (Ending(True, ACTIONS[:2]), False)])
def test_only_equal_commands_and_endings_are_the_same(by_actor, is_same):
    """A command off by a hundredth of a millimetre is another one."""
    assert pair(by_actor).is_same == is_same
    assert ('yes' in evaluate_nodes.table([pair(by_actor)])) == is_same


def test_the_table_says_what_the_node_held_and_why():
    """Otherwise a policy that is refused looks like one that does nothing."""
    held = pair(Ending(True, ACTIONS))._replace(
        by_nodes=Ending(False, ACTIONS, 'held 2 of 3 steps (step 2): too far'))
    assert 'failure, 3 steps; held 2 of 3 steps (step 2): too far' in evaluate_nodes.table([held])


def test_what_was_commanded_does_not_depend_on_the_order_of_arrival():
    """
    Frames, arm and gripper commands come on topics of their own, each in its order alone.

    A gripper command that came late was once counted to the next step, and an answer that came
    before its frames to none.
    """
    stamps = [100, 200, 300]
    arms = {stamp: (stamp + 50, np.full(6, stamp, np.float32)) for stamp in stamps}
    grippers = [(stamp + 49, float(stamp == 200)) for stamp in stamps]
    records = []
    for order in itertools.permutations(range(3)):
        heard = {stamps[i]: arms[stamps[i]] for i in order}
        record = EpisodeRecord(images={stamps[i]: {} for i in order},
                               arms={10: (60, np.zeros(6)), **heard},
                               grippers=[grippers[i] for i in order])
        assert record.pair()
        records.append([(stamp, action.arm[0], action.gripper_open)
                        for stamp, action in record.actions.items()])
    assert records == [[(100, 100, 0.0), (200, 200, 1.0), (300, 300, 0.0)]] * 6
    for late in ({'arms': {s: arms[s] for s in (100, 200)}}, {'grippers': grippers[:2]}):
        assert not EpisodeRecord(**{'images': dict.fromkeys(stamps), 'arms': arms,
                                    'grippers': grippers} | late).pair()


@pytest.mark.parametrize(('changes', 'complaint'), [
    ({'actor': 'zero'}, 'actor=policy'), ({'control': 'blank'}, 'stops the policy node'),
    ({'control': 'state_cleared'}, 'keeps its own state'),
    ({'history': 'carry'}, 'as the policy was trained for')])
def test_what_the_nodes_cannot_run_is_refused(changes, complaint):
    """Before any node starts."""
    values = {'output': Path('x'), 'benchmark': 'a', 'checkpoint': Path('c')} | changes
    with pytest.raises(ValueError, match=complaint):
        evaluate_nodes.check(EvaluateConfig(**values), [])


@pytest.mark.parametrize(('benchmark', 'control'), [
    ('a', 'none'), ('a', 'swapped'), ('b', 'none'), ('b', 'swapped'), ('c', 'none'),
    ('libero_goal', 'none'), ('validation-a', 'swapped'), ('validation-b', 'swapped'),
    ('validation-c', 'none'), ('m', 'none'), ('validation-m', 'none')])
def test_parameters_name_every_episode_of_a_benchmark(benchmark, control):
    """The robot's parameters make the same episode again: places, goal, seed, words."""
    for episode in controls.controlled(benchmarks.named(benchmark), control):
        values = parameters.parameters_of(episode)
        again = parameters.episode(parameters.SimSettings(
            **values | {'slots': tuple(values['slots'])}))
        assert dataclasses.replace(
            again, name=episode.name, instruction=values['instruction']) == episode


def test_an_episode_that_parameters_cannot_name_is_refused():
    """Rather than run another one."""
    episode = dataclasses.replace(benchmarks.a()[0], goal=(('on', 'milk_1', 'basket_1'),))
    with pytest.raises(ValueError, match='no parameters of the simulated robot name'):
        parameters.parameters_of(episode)


@pytest.mark.parametrize(('changes', 'complaint'), [
    ({'slots': (1, 0), 'official_state': 3}, 'permute a seeded reset'),
    ({'target': 'basket_1'}, 'cannot be put into'),
    ({'target': 'milk_1', 'task': 'libero_goal/0'}, 'another kind'),
    ({'target': 'milk_1', 'task': 'memory/shown_object'}, 'another kind'),
    ({'cue': 7, 'task': 'memory/shown_object'}, 'cue must be 0 to 6'),
    ({'official_state': 3, 'task': 'memory/shown_object'}, 'no official initial states')])
def test_parameters_that_contradict_each_other_name_no_episode(changes, complaint):
    """One of them would have no effect, or the goal no sense."""
    with pytest.raises(ValueError, match=complaint):
        parameters.episode(parameters.SimSettings(**changes))


def test_the_table_is_kept_and_a_difference_is_a_failure(monkeypatch, tmp_path, capsys):
    alike, other = pair(Ending(True, ACTIONS)), pair(Ending(True, ACTIONS + 1.0))
    for pairs, status in (([alike], 0), ([alike, other], 1)):
        monkeypatch.setattr(evaluate_nodes, 'run', lambda settings, pairs=pairs: iter(pairs))
        assert evaluate_nodes.main(['--config', str(CONFIG), f'output={tmp_path}']) == status
        kept = (tmp_path / evaluate_nodes.REPORT).read_text()
        assert f'1 of {len(pairs)} episodes went alike' in kept
        assert kept in capsys.readouterr().out
