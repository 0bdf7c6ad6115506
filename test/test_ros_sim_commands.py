"""What the simulated robot was told: taken once, matched by stamp, refused if nonsense."""

import math
import threading

import numpy as np
import pytest
from ros2_lstm_policy.ros.sim import commands
from ros2_lstm_policy.ros.sim.commands import CommandInbox

ARM = (0.01, 0.02, 0.03, 0.1, 0.2, 0.3)


def test_an_answer_needs_the_arm_command_of_that_stamp() -> None:
    """A late answer to an earlier observation moves nothing."""
    inbox = CommandInbox()
    inbox.put_gripper((0.0,))
    inbox.put_arm(100, ARM)
    assert inbox.answer(200, timeout_s=0.0) is None
    inbox.put_arm(200, ARM)
    answer = inbox.answer(200, timeout_s=0.0)
    assert answer is not None
    assert answer[0].tolist() == list(ARM) and answer[1] is False


def test_an_arm_command_without_a_gripper_command_leaves_the_gripper() -> None:
    """A policy that has not decided about the gripper yet says nothing about it."""
    inbox = CommandInbox()
    inbox.clear(gripper_open=True)
    inbox.put_arm(100, ARM)
    answer = inbox.answer(100, timeout_s=1.0)
    assert answer is not None and answer[1] is True


def test_a_gripper_command_that_comes_after_the_arms_is_waited_for(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """Two topics have no common order."""
    monkeypatch.setattr(commands, 'GRIPPER_GRACE_S', 60.0)
    inbox = CommandInbox()
    inbox.put_arm(100, ARM)
    later = threading.Timer(0.02, inbox.put_gripper, ((0.0,),))
    later.start()
    answer = inbox.answer(100, timeout_s=60.0)
    later.join()
    assert answer is not None and answer[1] is False


def test_an_actor_that_commands_the_gripper_is_waited_for_however_busy_the_machine(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A grace that ran out was a step with the gripper of the step before.

    It is kept for actors that have not said anything about the gripper in this episode.
    """
    monkeypatch.setattr(commands, 'GRIPPER_GRACE_S', 0.0)
    monkeypatch.setattr(commands, 'KNOWN_GRIPPER_GRACE_S', 60.0)
    inbox = CommandInbox()
    inbox.put_gripper((1.0,))
    inbox.put_arm(100, ARM)
    assert inbox.answer(100, timeout_s=0.0) is not None
    inbox.clear()
    inbox.put_arm(200, ARM)
    later = threading.Timer(0.3, inbox.put_gripper, ((0.0,),))
    later.start()
    answer = inbox.answer(200, timeout_s=0.0)
    later.join()
    assert answer is not None and answer[1] is False
    inbox.clear(gripper_open=True)
    inbox.put_arm(300, ARM)
    assert inbox.answer(300, timeout_s=0.0) is not None


def test_a_displacement_is_executed_once_and_only_while_it_is_fresh() -> None:
    """In real time the newest command counts, one period long."""
    inbox = CommandInbox()
    inbox.put_arm(100, ARM)
    assert inbox.newest(oldest_stamp_ns=101)[0] is None
    inbox.put_arm(100, (0.0,) * 6)
    inbox.put_arm(200, ARM)
    arm, _ = inbox.newest(oldest_stamp_ns=101)
    assert arm is not None and arm.tolist() == list(ARM)
    assert inbox.newest(oldest_stamp_ns=101)[0] is None


def test_a_command_that_is_not_finite_becomes_a_hold_and_is_named() -> None:
    """The robot holds, and lock-step goes on."""
    inbox = CommandInbox()
    inbox.put_gripper((1.0,))
    refusal = inbox.put_arm(100, (math.nan, *ARM[1:]))
    assert refusal is not None and 'arm_delta' in refusal and 'holds' in refusal
    answer = inbox.answer(100, timeout_s=0.0)
    assert answer is not None and np.array_equal(answer[0], np.zeros(6))


def test_a_gripper_command_outside_0_to_1_is_refused_and_named() -> None:
    """Whoever sends metres or percent hears of it."""
    inbox = CommandInbox()
    inbox.put_gripper((0.0,))
    for values in ((), (0.5, 0.5), (100.0,), (-0.1,), (math.nan,)):
        refusal = inbox.put_gripper(values)
        assert refusal is not None and 'gripper_command' in refusal
    inbox.put_arm(100, ARM)
    answer = inbox.answer(100, timeout_s=0.0)
    assert answer is not None and answer[1] is False


def test_an_interruption_ends_a_wait_at_once() -> None:
    """A reset does not wait for the answer to the episode that it ends."""
    inbox = CommandInbox()
    done = threading.Event()
    waiter = threading.Thread(target=lambda: (inbox.answer(100, 60.0), done.set()))
    waiter.start()
    inbox.interrupt()
    assert done.wait(60.0)
    waiter.join()
