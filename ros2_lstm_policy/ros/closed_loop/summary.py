"""What the demo says at its end: who acted, what became of each episode, how fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
import json
from pathlib import Path

import numpy as np
from ros2_lstm_policy.ros.closed_loop.observer import EpisodeRecord
from ros2_lstm_policy.ros.closed_loop.options import DemoOptions

UNTRAINED = 'UNTRAINED'


@dataclass(frozen=True)
class EpisodeSummary:
    """
    One episode in numbers.

    :param episode: its number, name and instruction.
    :param steps: observations that were answered by a command.
    :param rate_hz: the same in a second of real time.
    :param latency_p50_ms: from the arrival of an observation's last frame to its command's, seen
        by a third process.
    :param held: steps that the actor answered by not moving.
    :param held_why: the same in words; empty where there were none.
    """

    episode: str
    success: bool
    steps: int
    rate_hz: float
    latency_p50_ms: float
    latency_p99_ms: float
    held: int
    held_why: str
    video: str
    picture: str


def summarise(record: EpisodeRecord, video: Path, picture: Path) -> EpisodeSummary:
    """Return an episode's numbers."""
    latencies_ms = 1000 * np.array(record.latencies_s or [np.nan])
    return EpisodeSummary(
        episode=record.name, success=bool(record.success), steps=record.steps,
        rate_hz=record.steps / max(record.wall_s, 1e-9),
        latency_p50_ms=float(np.percentile(latencies_ms, 50)),
        latency_p99_ms=float(np.percentile(latencies_ms, 99)),
        held=record.held, held_why=record.holds(), video=str(video), picture=str(picture))


def who_acted(options: DemoOptions) -> str:
    """Return who acted, in words: a trained policy, an UNTRAINED one or the expert."""
    if options.checkpoint is None:
        return "the scripted expert (it sees the simulator's state, not the images)"
    from ros2_lstm_policy.model.checkpoint import CARD, fingerprint
    card = options.checkpoint / CARD
    first_line = card.read_text(errors='replace').partition('\n')[0] if card.is_file() else ''
    kind = 'UNTRAINED policy' if UNTRAINED in first_line else 'policy'
    return f'{kind} {options.checkpoint} ({fingerprint(options.checkpoint)[:12]})'


def report(options: DemoOptions, episodes: Sequence[EpisodeSummary],
           first_command_s: float) -> str:
    """Return the summary as text, and write it as summary.json beside the videos."""
    actor = who_acted(options)
    pace = 'lock-step' if options.lock_step else 'real time'
    (options.output / 'summary.json').write_text(json.dumps({
        'actor': actor, 'pace': pace, 'first_command_s': first_command_s,
        'episodes': [asdict(episode) for episode in episodes]}, indent=2) + '\n')
    lines = ['', f'acted:          {actor}', f'pace:           {pace}',
             f'first command:  {first_command_s:.1f} s after the start',
             f'successes:      {sum(e.success for e in episodes)} of {len(episodes)}', '']
    for each in episodes:
        lines += [each.episode,
                  f'  {"success" if each.success else "NO SUCCESS"} after {each.steps} steps, '
                  f'{each.rate_hz:.1f} steps/s, frames to command '
                  f'{each.latency_p50_ms:.1f} ms (median), {each.latency_p99_ms:.1f} ms (99 %)',
                  *([f'  {each.held_why}'] if each.held_why else []),
                  f'  {each.video}', f'  {each.picture}']
    return '\n'.join([*lines, *(f'note: {note}' for note in options.notes)])
