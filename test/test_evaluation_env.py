"""A robot that no room of this package knows, evaluated like the others."""

from dataclasses import dataclass

import numpy as np
from ros2_lstm_policy.evaluation.env import Env, play
from ros2_lstm_policy.manifest import ActionGroup, CameraSpec, Manifest, Normalisation, StateSpec
from ros2_lstm_policy.model.policy import BackboneConfig, DecoderConfig, Policy, PolicyConfig
from ros2_lstm_policy.runtime.actor import PolicyActor
from ros2_lstm_policy.types import Action, Decision, Observation

GOAL, REACHED, PERIOD_S = np.array([0.3, -0.2]), 0.05, 0.1
UNIT = Normalisation.unit(2)
PLANAR = Manifest(PERIOD_S, (CameraSpec('above', 32, 32, 'area', (0.5,) * 3, (0.5,) * 3),),
                  (ActionGroup('base', 'joint_velocity', 2, UNIT, names=('x', 'y')),),
                  (StateSpec('position', 2, UNIT),))


@dataclass(frozen=True)
class PlanarState:
    """Where the point is, and what it sees of that."""

    observation: Observation
    success: bool
    step: int

    def is_over(self, horizon: int) -> bool:
        """Return whether it is there, or will not be in time."""
        return self.success or self.step >= horizon


class Planar:
    """A point on a plane that is told how fast to move."""

    def reset(self, episode: np.ndarray) -> PlanarState:
        """Begin somewhere."""
        self._position, self._step = np.array(episode, np.float64), -1
        return self._look()

    def step(self, action: Action) -> PlanarState:
        """Move for one control period."""
        self._position = self._position + PERIOD_S * action.groups['base']
        return self._look()

    def close(self) -> None:
        """Free nothing."""

    def _look(self) -> PlanarState:
        self._step += 1
        image = np.full((32, 32, 3), 40, np.uint8)
        row, column = np.clip(16 + 15 * self._position, 0, 31).astype(int)
        image[row, column] = 255
        observation = Observation(self._step, {'above': image}, {'position': self._position})
        return PlanarState(observation, bool(np.linalg.norm(self._position - GOAL) < REACHED),
                           self._step)


def homing(observation: Observation, instruction: str) -> Decision:
    """Drive to the goal."""
    velocity = GOAL - observation.states['position']
    return Decision(Action({'base': velocity}), velocity[None], {'all': 0.01})


def test_a_robot_of_sixty_lines_is_evaluated() -> None:
    """Three methods and a state are all that the loop asks for."""
    env: Env[PlanarState] = Planar()
    seen: list[int] = []
    state, act_s = play(env, env.reset(np.zeros(2)), homing, 'go there', 60,
                        lambda state, action: seen.append(state.step))
    assert state.success and act_s == 0.01
    assert seen == list(range(state.step))
    state, _ = play(env, env.reset(np.zeros(2)), homing, 'go there', 3)
    assert not state.success and state.step == 3


def test_a_policy_of_its_body_moves_it() -> None:
    """What it commands and measures is a manifest's matter alone."""
    policy = Policy(PolicyConfig(
        BackboneConfig('compact', {'width': 32, 'layers': 1, 'feed_forward': 32}),
        DecoderConfig(hidden_size=16, num_layers=1, window_size=2, fwd_pred_next_n=2)), PLANAR)
    actor, env = PolicyActor(policy.eval()), Planar()
    state, act_s = play(env, env.reset(np.zeros(2)), actor.act, 'go there', 4)
    assert state.step == 4 and act_s > 0
    assert np.abs(state.observation.states['position']).max() > 0
