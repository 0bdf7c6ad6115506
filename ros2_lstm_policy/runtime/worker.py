"""
One thread that acts, a mailbox that holds the newest observation only, and the episode number.

One lock, :attr:`PolicyWorker.lock`, guards the episode and whatever is published for it: outcomes
are delivered under it, and :meth:`PolicyWorker.reset` raises the number under it. So once `reset`
has returned, nothing that was computed for an earlier episode can be delivered any more. The lock
is never held while the actor works.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import threading
import time

from ros2_lstm_policy.types import Actor, Decision, Observation


@dataclass(frozen=True, eq=False)
class Job:
    """
    One observation to act on.

    :param submitted_ns: monotonic time.
    :param spent_ns: what had been spent on it before, for the one who measures.
    :param age_ns: how old it was when it was submitted, likewise.
    """

    episode: int
    observation: Observation
    instruction: str
    submitted_ns: int
    spent_ns: int
    age_ns: int


@dataclass(frozen=True)
class Outcome:
    """
    What became of a job; times are monotonic.

    :param result: the decision, or what the actor raised.
    """

    job: Job
    result: Decision | BaseException
    started_ns: int
    finished_ns: int


@dataclass(frozen=True)
class Seen:
    """
    What the actor has seen since it last forgot.

    :param steps: observations.
    :param lasts_s: from the first of them to the last, by their stamps.
    """

    steps: int = 0
    lasts_s: float = 0.0


class PolicyWorker:
    """
    Lets an actor act on a thread of its own.

    :param actor: used on the worker's thread only.
    :param deliver: called under the lock with the outcome of a job that is still wanted; must
        not raise.
    :param first_episode: the number that episodes are counted on from.
    """

    def __init__(self, actor: Actor, deliver: Callable[[Outcome], None],
                 first_episode: int = 0) -> None:
        """Make a worker that :meth:`start` starts."""
        self.lock = threading.RLock()
        self._wake = threading.Condition(self.lock)
        self._actor, self._deliver = actor, deliver
        self._episode = first_episode
        self._waiting: Job | None = None
        self._current: Job | None = None
        self._actor_is_stale = True
        self._seen, self._first_ns = Seen(), 0
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name='policy_worker', daemon=True)

    @property
    def episode(self) -> int:
        """Return the number of the episode."""
        return self._episode

    @property
    def current(self) -> Job | None:
        """Return the job that is being worked on and still awaits its answer."""
        return self._current

    @property
    def seen(self) -> Seen:
        """Return what the next decision rests on, besides its own observation."""
        with self.lock:
            return Seen() if self._actor_is_stale else self._seen

    @property
    def is_alive(self) -> bool:
        """Return whether somebody works on what is submitted."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, observation: Observation, instruction: str, spent_ns: int = 0,
               age_ns: int = 0) -> Job | None:
        """
        Put an observation into the mailbox.

        :return: the older job that it replaced there, which will never be worked on.
        """
        with self._wake:
            replaced = self._waiting
            self._waiting = Job(self._episode, observation, instruction, time.monotonic_ns(),
                                spent_ns, age_ns)
            self._wake.notify()
        return replaced

    def reset(self) -> tuple[Job, ...]:
        """
        Begin the next episode; to be called under the lock by whoever publishes on a reset.

        :return: the jobs that were open and will not be answered.
        """
        with self.lock:
            self._episode += 1
            self._actor_is_stale = True
            return self.drop()

    def drop(self) -> tuple[Job, ...]:
        """
        Want no answer to any open job: what it would be is in doubt.

        :return: the jobs that were open and will not be answered.
        """
        with self.lock:
            dropped = tuple(job for job in (self._current, self._waiting) if job is not None)
            self._current = self._waiting = None
        return dropped

    def give_up(self) -> Job | None:
        """Stop waiting for the job in progress; its outcome will be dropped."""
        with self.lock:
            job, self._current = self._current, None
        return job

    def forget(self) -> None:
        """Have the actor forget what it remembers before it acts again."""
        with self.lock:
            self._actor_is_stale = True

    def stop(self, timeout_s: float) -> bool:
        """
        End the thread; nothing is delivered any more.

        :return: whether the thread has ended; an actor that hangs is left to die with the process.
        """
        with self._wake:
            self.reset()
            self._stopped = True
            self._wake.notify()
        if self._thread.ident is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            job, actor_is_stale = taken
            outcome = self._work(job, actor_is_stale)
            with self.lock:
                if self._current is job:
                    self._current = None
                    self._deliver(outcome)
            self._settle(outcome)

    def _take(self) -> tuple[Job, bool] | None:
        """
        Wait for a job; None when stopped.

        Job and staleness are taken in one step: a reset between the two would otherwise let this
        job's observation into the next episode's history.
        """
        with self._wake:
            self._wake.wait_for(lambda: self._stopped or self._waiting is not None)
            if self._waiting is None:
                return None
            self._current, self._waiting = self._waiting, None
            stale, self._actor_is_stale = self._actor_is_stale, False
            return self._current, stale

    def _work(self, job: Job, actor_is_stale: bool) -> Outcome:
        started_ns = time.monotonic_ns()
        result: Decision | BaseException
        try:
            if actor_is_stale:
                self._actor.reset()
            result = self._actor.act(job.observation, job.instruction)
            self._count(job, actor_is_stale)
        except BaseException as error:  # the thread's edge: the node holds and lives
            self.forget()
            result = error
        return Outcome(job, result, started_ns, time.monotonic_ns())

    def _count(self, job: Job, is_first: bool) -> None:
        stamp_ns = job.observation.stamp_ns
        with self.lock:
            self._first_ns = stamp_ns if is_first else self._first_ns
            steps = 1 if is_first else self._seen.steps + 1
            self._seen = Seen(steps, (stamp_ns - self._first_ns) / 1e9)

    def _settle(self, outcome: Outcome) -> None:
        """Let the actor do what the action did not wait for, while nobody waits."""
        if isinstance(outcome.result, Decision):
            try:
                outcome.result.settle()
            except BaseException:  # the thread's edge; what is wrong will be met again, and said
                self.forget()
