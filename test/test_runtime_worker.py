"""Tests of the worker thread: newest only, one answer, and nothing old after a reset."""

import random
import threading
import time

import numpy as np
import pytest
from ros2_lstm_policy.runtime.worker import PolicyWorker, Seen
from ros2_lstm_policy.types import Action, Decision, Observation

WAIT_S = 5


class GatedActor:
    """
    Counts the observations since its reset; each act waits for a gate.

    Its decision's gripper is that count, so that a memory that leaked shows.
    """

    def __init__(self):
        """Begin with open gates."""
        self.memory, self.seen, self.resets = [], [], 0
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.error = self.settle_error = None
        self.settled = []

    def reset(self):
        """Forget."""
        self.memory, self.resets = [], self.resets + 1

    def act(self, observation, instruction):
        """Remember the observation."""
        self.memory.append(observation.stamp_ns)
        self.seen.append(observation.stamp_ns)
        self.entered.set()
        assert self.gate.wait(WAIT_S)
        if self.error is not None:
            raise self.error
        return Decision(Action.one_arm(np.zeros(6), len(self.memory)), np.zeros((1, 7)),
                        settle=self.settle)

    def settle(self):
        """Remember when it was done."""
        self.settled.append(self.on_settle())
        if self.settle_error is not None:
            raise self.settle_error

    def close_gate(self):
        """Let the next act wait, and say when it has begun."""
        self.gate.clear()
        self.entered.clear()


class Harness:
    """A worker with a fake actor and a list of what was delivered."""

    def __init__(self):
        """Start the worker."""
        self.actor, self.outcomes = GatedActor(), []
        self.actor.on_settle = self.stamps
        self.delivered = threading.Condition()
        self.worker = PolicyWorker(self.actor, self._deliver)
        self.worker.start()

    def _deliver(self, outcome):
        with self.delivered:
            self.outcomes.append(outcome)
            self.delivered.notify_all()

    def submit(self, number):
        """Submit observation `number`."""
        return self.worker.submit(Observation(number, {}), 'go')

    def wait_for(self, count):
        """Wait for so many deliveries."""
        with self.delivered:
            assert self.delivered.wait_for(lambda: len(self.outcomes) >= count, WAIT_S)

    def stamps(self):
        """Return the observations that were answered."""
        return [outcome.job.observation.stamp_ns for outcome in self.outcomes]


@pytest.fixture
def harness():
    """Return a running worker; it must end with the test."""
    harness = Harness()
    yield harness
    harness.actor.gate.set()
    assert harness.worker.stop(WAIT_S)


def test_every_observation_is_answered_in_order(harness):
    """One in, one out."""
    for number in range(5):
        assert harness.submit(number) is None
        harness.wait_for(number + 1)
    assert harness.stamps() == list(range(5))


def test_only_the_newest_waiting_observation_is_acted_on(harness):
    """What was replaced is handed back, so that somebody can say so."""
    harness.actor.close_gate()
    harness.submit(0)
    assert harness.actor.entered.wait(WAIT_S)
    assert harness.submit(1) is None
    assert harness.submit(2).observation.stamp_ns == 1
    harness.actor.gate.set()
    harness.wait_for(2)
    assert harness.stamps() == [0, 2]


def test_a_reset_during_inference_drops_its_outcome(harness):
    """The old observation is neither delivered nor remembered."""
    harness.actor.close_gate()
    harness.submit(0)
    assert harness.actor.entered.wait(WAIT_S)
    harness.submit(1)
    dropped = harness.worker.reset()
    assert [job.observation.stamp_ns for job in dropped] == [0, 1]
    harness.submit(2)
    harness.actor.gate.set()
    harness.wait_for(1)
    assert harness.stamps() == [2]
    assert harness.outcomes[0].job.episode == harness.worker.episode == 1
    assert harness.outcomes[0].result.action.gripper_open == 1


def test_no_outcome_of_an_old_episode_after_reset_returned(harness):
    """Two hundred resets at random moments; every first answer comes from an empty memory."""
    rng, number = random.Random(0), 0
    for _ in range(200):
        for _ in range(rng.randint(0, 3)):
            harness.submit(number := number + 1)
            time.sleep(rng.random() * 2e-4)
        harness.worker.reset()
        delivered, episode = len(harness.outcomes), harness.worker.episode
        harness.submit(number := number + 1)
        harness.wait_for(delivered + 1)
        first = harness.outcomes[delivered]
        assert first.job.episode == episode
        assert first.result.action.gripper_open == 1


def test_a_failure_is_delivered_and_the_worker_lives_with_an_empty_memory(harness):
    """After an error nobody knows what the actor remembers, so it begins afresh."""
    harness.submit(0)
    harness.wait_for(1)
    harness.actor.error = RuntimeError('broken')
    harness.submit(1)
    harness.wait_for(2)
    assert str(harness.outcomes[1].result) == 'broken'
    harness.actor.error = None
    harness.submit(2)
    harness.wait_for(3)
    assert harness.outcomes[2].result.action.gripper_open == 1


def test_not_even_an_exit_in_the_actor_ends_the_worker(harness):
    """A library that calls sys.exit would otherwise leave nobody to answer, and nobody told."""
    harness.actor.error = SystemExit(3)
    harness.submit(0)
    harness.wait_for(1)
    assert isinstance(harness.outcomes[0].result, SystemExit)
    harness.actor.error = None
    harness.submit(1)
    harness.wait_for(2)
    assert harness.worker.is_alive


def test_what_was_given_up_is_never_delivered(harness):
    """The robot holds already; a late answer would be a second one."""
    harness.actor.close_gate()
    harness.submit(0)
    assert harness.actor.entered.wait(WAIT_S)
    assert harness.worker.give_up().observation.stamp_ns == 0
    assert harness.worker.give_up() is None
    harness.submit(1)
    harness.actor.gate.set()
    harness.wait_for(1)
    assert harness.stamps() == [1]


def test_what_is_dropped_is_not_answered_whether_it_is_worked_on_or_waits(harness):
    """A camera was found to be frozen, and the answer to its image still moved the robot."""
    harness.actor.close_gate()
    harness.submit(0)
    assert harness.actor.entered.wait(WAIT_S)
    harness.submit(1)
    assert [job.observation.stamp_ns for job in harness.worker.drop()] == [0, 1]
    assert harness.worker.drop() == ()
    harness.submit(2)
    harness.actor.gate.set()
    harness.wait_for(1)
    assert harness.stamps() == [2]


def test_the_actor_can_be_made_to_forget(harness):
    """A decision that was refused for NaN must not live on in the memory."""
    harness.submit(0)
    harness.wait_for(1)
    harness.worker.forget()
    harness.submit(1)
    harness.wait_for(2)
    assert [o.result.action.gripper_open for o in harness.outcomes] == [1, 1]


def test_how_much_the_actor_has_seen_is_counted_from_where_it_forgot(harness):
    """A state's age; an observation that fails is forgotten with all before it."""
    assert harness.worker.seen == Seen()
    for count, stamp_s in enumerate((1, 2, 4), 1):
        harness.submit(stamp_s * 10**9)
        harness.wait_for(count)
    assert harness.worker.seen == Seen(3, 3.0)
    harness.worker.forget()
    assert harness.worker.seen == Seen()
    harness.submit(9 * 10**9)
    harness.wait_for(4)
    assert harness.worker.seen == Seen(1, 0.0)


def test_a_worker_whose_actor_hangs_can_be_left():
    """Stopping says so instead of waiting for ever."""
    harness = Harness()
    harness.actor.close_gate()
    harness.submit(0)
    assert harness.actor.entered.wait(WAIT_S)
    assert not harness.worker.stop(0.01)
    harness.actor.gate.set()
    assert harness.worker.stop(WAIT_S)
    assert harness.outcomes == []


def test_what_an_action_need_not_wait_for_is_done_when_it_is_out(harness):
    for number in range(3):
        harness.submit(number)
        harness.wait_for(number + 1)
    harness.worker.stop(WAIT_S)
    assert harness.actor.settled == [[0], [0, 1], [0, 1, 2]]


def test_a_settling_that_fails_ends_neither_the_thread_nor_the_next_decision(harness):
    harness.actor.settle_error = RuntimeError('the device is gone')
    for number in range(2):
        harness.submit(number)
        harness.wait_for(number + 1)
    assert harness.stamps() == [0, 1]
    assert all(isinstance(outcome.result, Decision) for outcome in harness.outcomes)
    assert harness.actor.resets == 2
