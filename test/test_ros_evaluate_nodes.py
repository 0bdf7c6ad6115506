"""Two ways through an episode are the same only where every command is."""

from pathlib import Path

import numpy as np
import pytest
from ros2_lstm_policy.evaluation.evaluate import EvaluateConfig
from ros2_lstm_policy.ros import evaluate_nodes
from ros2_lstm_policy.ros.evaluate_nodes import Ending, Pair
from ros2_lstm_policy.sim.tasks import SimEpisode

ACTIONS = np.arange(21.0).reshape(3, 7)


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


@pytest.mark.parametrize(('changes', 'slots', 'complaint'), [
    ({'actor': 'zero'}, None, 'the nodes run a policy'),
    ({'control': 'blank'}, None, 'without a control'),
    ({'execute': 'ensemble'}, None, 'execute its first action'),
    ({}, (1, 0), 'names permuted places')])
def test_what_the_nodes_cannot_run_is_refused(changes, slots, complaint):
    """Before any node starts."""
    values = {'output': Path('x'), 'benchmark': 'a', 'checkpoint': Path('c')} | changes
    episode = SimEpisode('e', 'libero_90/50', 'scene', 'words', (), None, None, slots=slots)
    with pytest.raises(ValueError, match=complaint):
        evaluate_nodes.check(EvaluateConfig(**values), [episode])
