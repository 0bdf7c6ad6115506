"""The work of each `dataset` command."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
import os
from pathlib import Path

from ros2_lstm_policy import config
from ros2_lstm_policy.data.checks import Limits, read_checked
from ros2_lstm_policy.data.convert import to_bag, ToLeRobot
from ros2_lstm_policy.data.episodes import Reading, Recording
from ros2_lstm_policy.data.problems import Problem, RecordingError
from ros2_lstm_policy.data.proposal import propose
from ros2_lstm_policy.data.request import request
from ros2_lstm_policy.data.sources import SourceSpec
from ros2_lstm_policy.data.statistics import fitted_group, fitted_state
from ros2_lstm_policy.data.summary import DatasetSummary, draw, Drawn, EpisodeSummary, unread_said
from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.process_pool import in_order
from tqdm import tqdm

OK, PROBLEMS = 0, 1
_A_PROCESS = 8  # recordings for which starting another process pays


def inspect(options: argparse.Namespace) -> int:
    """Print the table, and draw the picture; or propose how to read what others recorded."""
    if options.propose:
        print(propose(SourceSpec(options.path)))
        return OK
    summary = _summary(options, with_images=options.png is not None)
    print(summary.table(options.all))
    for problem in summary.problems:
        print(problem)
    if options.png is not None and summary.episodes:
        draw(summary, options.png)
        print(f'drawn: {options.png}')
    return PROBLEMS if summary.broken else OK


def stats(options: argparse.Namespace) -> int:
    """Print the statistics that a manifest takes."""
    summary = _summary(options)
    if not summary.episodes:
        raise ValueError(f'{options.path}: no episode can be read; see `dataset validate`')
    begins = summary.begins
    print(f'# {len(begins)} steps of {len(summary.episodes)} episodes in {options.path}; '
          f'{options.how}; {summary.broken} broken recordings left out')
    fitted = tuple(fitted_group(group, summary.action(group.name), begins, options.how)
                   for group in summary.groups)
    states = tuple(fitted_state(state, summary.state(state.name), options.how)
                   for state in summary.states)
    print(config.dump({'actions': fitted} | ({'states': states} if states else {})), end='')
    return OK


def convert(options: argparse.Namespace) -> int:
    """Write the good episodes in another format; name the others."""
    broken = 0
    others: dict[str, None] = {}  # in the order in which they came
    with _writer(options) as write:
        for recording in tqdm(request(options).recordings(), unit='recording', disable=None):
            readings, problems = read_checked(recording, Limits())
            for reading in readings:
                try:
                    write(reading)
                    others |= dict.fromkeys(reading.others)
                except RecordingError as error:  # over an image: none was decoded before
                    problems.append(error.problem)
            broken += any(problem.fatal for problem in problems)
            for problem in problems:
                tqdm.write(str(problem))
    if others:
        print(f'not carried over, since an episode has no place for it: {", ".join(others)}')
    print(f'{options.output}: written; {broken} broken recordings left out')
    return PROBLEMS if broken else OK


def validate(options: argparse.Namespace) -> int:
    """Print every problem; decode every image unless told otherwise."""
    asked = request(options)
    limits, cameras = asked.limits, asked.cameras
    recordings = asked.recordings()
    processes = min(len(os.sched_getaffinity(0)), len(recordings) // _A_PROCESS)
    find = partial(_problems_of, limits=limits, cameras=cameras, images=not options.skip_images)
    others: dict[str, None] = {}
    broken = 0
    with closing(in_order(find, recordings, processes, lambda r: f'{r.where}')) as found:
        for problems, unread in tqdm(found, total=len(recordings), unit='recording',
                                     disable=None):
            others |= dict.fromkeys(unread)
            broken += any(problem.fatal for problem in problems)
            for problem in problems:
                tqdm.write(f'{"BROKEN" if problem.fatal else "note"}  {problem}')
    if others:
        print(unread_said(others))
    print(f'{options.path}: {len(recordings) - broken} good, {broken} broken of '
          f'{len(recordings)} recordings')
    return PROBLEMS if broken else OK


def _problems_of(recording: Recording, limits: Limits, cameras: Sequence[CameraSpec],
                 images: bool) -> tuple[list[Problem], tuple[str, ...]]:
    """Return the problems of a recording, and what of it nothing is read from."""
    readings, problems = read_checked(recording, limits, cameras)
    others = dict.fromkeys(name for reading in readings for name in reading.others)
    return problems + (_look_at_images(readings) if images else []), tuple(others)


def _look_at_images(readings: list[Reading]) -> list[Problem]:
    """Decode every image, which is what finds the broken ones."""
    problems: list[Problem] = []
    for reading in readings:
        for frames in reading.episode.frames.values():
            try:
                for step in range(len(frames)):
                    frames[step]
            except RecordingError as error:
                problems.append(error.problem)
    return problems


def _summary(options: argparse.Namespace, with_images: bool = False) -> DatasetSummary:
    """Read everything but the images; the first ones of the episodes that are drawn."""
    episodes: list[EpisodeSummary] = []
    problems: list[Problem] = []
    others: dict[str, None] = {}
    broken, drawn = 0, Drawn()
    asked = request(options)
    for recording in tqdm(asked.recordings(), unit='recording', disable=None):
        readings, found = read_checked(recording, asked.limits)
        for reading in readings:
            others |= dict.fromkeys(reading.others)
            try:
                episodes.append(EpisodeSummary.of(
                    reading, with_images and drawn.wants(reading.episode.instruction)))
            except RecordingError as error:
                found.append(error.problem)
        problems += found
        broken += any(problem.fatal for problem in found)
    return DatasetSummary(options.path, tuple(episodes), tuple(problems), broken, tuple(others))


@contextmanager
def _writer(options: argparse.Namespace) -> Iterator[Callable[[Reading], None]]:
    """Give a function that takes readings, and complete the output where all went well."""
    if options.to == 'bag':
        if options.output.exists():
            raise FileExistsError(f'{options.output}: exists already; name another folder')
        with _room(options.output, 'the bags that are there are complete'):
            yield lambda reading: to_bag(reading, options.output, options.jpeg)
        return
    converter = ToLeRobot(options.output)
    try:
        with _room(options.output, 'nothing of it is kept'):
            yield converter.append
            converter.close()
        for remark in converter.remarks:
            print(remark)
    except BaseException:
        converter.discard()
        raise


@contextmanager
def _room(output: Path, kept: str) -> Iterator[None]:
    """Say what a full disk leaves."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise ValueError(f'{output}: cannot be written ({error}); make room, or name another '
                         f'folder; {kept}') from error
