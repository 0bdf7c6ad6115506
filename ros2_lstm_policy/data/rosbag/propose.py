"""Proposes how to read a foreign bag: its cameras, states, and what its actions are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
import re
from typing import Any

import numpy as np
from ros2_lstm_policy.data.problems import refuse
from ros2_lstm_policy.data.proposal import free_name, Line, plain_name, Proposal
from ros2_lstm_policy.data.rosbag import format as bag
from ros2_lstm_policy.data.rosbag.find import find_bags
from ros2_lstm_policy.data.rosbag.survey import IMAGES, survey, Topic
from ros2_lstm_policy.streams import JOINT_STATE, USUAL

_TRAJECTORY = 'trajectory_msgs/msg/JointTrajectory'
_IMAGE_WORDS = ('image', 'raw', 'color', 'colour', 'rgb', 'rect', 'compressed')
_COMMAND = {'command', 'commands', 'cmd', 'cmds', 'target', 'goal', 'desired', 'reference',
            'setpoint', 'action', 'actions', 'delta', 'deltas'}
_WORDS = {'instruction', 'instructions', 'task', 'language', 'prompt', 'text'}
_FINGER = ('finger', 'gripper', 'jaw', 'claw', 'knuckle')
_USUAL_PERIOD_S, _SLOW_HZ = 0.1, 20.0


def propose_bag(root: Path) -> Proposal:
    """Return a proposal for the bags at or under a path, by the first of them."""
    bags = find_bags(root)
    if not bags:
        raise refuse('no-dataset', root, '', 'no rosbag2 bag (metadata.yaml, .mcap, .db3)')
    topics = survey(bags[0])
    cameras = _cameras(topics)
    slowest = min((topic.rate_hz for topic in cameras.values()), default=0.0)
    period_s = _USUAL_PERIOD_S if slowest >= 0.95 / _USUAL_PERIOD_S or slowest <= 0 \
        else round(1 / slowest, 3)
    proposal = Proposal(
        str(root), period_s, f'DECIDE: time that one action covers; the slowest camera has '
        f'{slowest:.1f} Hz', 'bag',
        [f'{len(bags)} bags; the first, {bags[0]}, has', *(f'  {topic}' for topic in topics)])
    for name, topic in cameras.items():
        proposal.add_camera(name, f'{topic.name}: {topic.about}, {topic.rate_hz:.1f} Hz')
    proposal.how['topics'] = Line({'cameras': {name: _base(topic)
                                               for name, topic in cameras.items()}})
    if slowest < _SLOW_HZ and len(cameras) > 1:
        proposal.how['max_skew_s'] = Line(round(1.1 / max(slowest, 0.1), 3),
                                          'DECIDE: as on the robot; the cameras are slow')
    _add_streams(proposal, topics)
    _add_words(proposal, topics)
    return proposal


def _base(topic: Topic) -> str:
    return topic.name.strip('/')


def _cameras(topics: Sequence[Topic]) -> dict[str, Topic]:
    """Return the colour cameras by a name of their own; raw images before compressed ones."""
    images = [topic for topic in topics if topic.msgtype in IMAGES and not topic.fault
              and 'depth' not in topic.name.lower()]
    raw = {topic.name for topic in images if topic.msgtype == bag.IMAGE}
    found: dict[str, Topic] = {}
    for topic in images:
        if topic.msgtype == bag.IMAGE or topic.name.removesuffix('/compressed') not in raw:
            name = plain_name(topic.name, _IMAGE_WORDS, 'camera')
            found[free_name(name, list(found))] = topic
    return found


def _add_streams(proposal: Proposal, topics: Sequence[Topic]) -> None:
    """Propose the topics of numbers as states, and as actions those that command."""
    numbers = [topic for topic in topics if topic.values is not None and not topic.fault]
    commands = [topic for topic in numbers if topic.msgtype == _TRAJECTORY
                or _COMMAND & set(re.findall('[a-z]+', topic.name.lower()))]
    measured: dict[str, Topic] = {}
    for topic in numbers:
        if topic not in commands:
            measured[_state_name(topic, list(measured), numbers)] = topic
    states: dict[str, Any] = {}
    for name, topic in measured.items():
        assert topic.values is not None
        size = topic.values.shape[1]
        proposal.states.append(Line({'name': name, 'size': size} | _named(topic.names),
                                    f'{topic.name}, {topic.rate_hz:.1f} Hz'))
        states[name] = {'topic': _base(topic), 'msgtype': topic.msgtype} | _named(topic.names)
    sources: dict[str, Any] = {}
    if _add_one_arm(proposal, commands):
        pass
    elif commands:
        for topic in commands:
            _add_command(proposal, topic, sources)
    else:
        _add_measured(proposal, measured, states, sources)
    if states:
        proposal.how['states'] = Line(states)
    if sources:
        proposal.how['actions'] = Line(sources, 'DECIDE: what the robot was told, or what it did '
                                       'next ({state: NAME})')


def _add_one_arm(proposal: Proposal, commands: Sequence[Topic]) -> bool:
    """Propose one arm's deltas and a gripper, where a twist and two numbers are all there is."""
    twists = [topic for topic in commands if topic.msgtype == bag.TWIST]
    hands = [topic for topic in commands if topic.msgtype == bag.GRIPPER
             and topic.values is not None and topic.values.shape[1] == 1
             and len(np.unique(topic.values)) == 2]
    if len(twists) != 1 or len(hands) != 1 or len(commands) != 2:
        return False
    closed, opened = sorted(np.unique(hands[0].values).tolist())  # type: ignore[arg-type]
    topics = {**proposal.how['topics'].values, 'arm_delta': _base(twists[0]),
              'gripper_command': _base(hands[0])}
    proposal.how['topics'] = Line(topics)
    is_velocity = bool({'twist', 'servo', 'cmd', 'vel', 'velocity'}
                       & set(re.findall('[a-z]+', twists[0].name.lower())))
    proposal.how['arm'] = Line('velocity' if is_velocity else 'displacement',
                               'DECIDE: m/s and rad/s (velocity), or m and rad of one period '
                               '(displacement)')
    proposal.how['stamps'] = Line('now', 'DECIDE: actions are stamped when they are sent '
                                  '(now), or as the observation that they answer')
    for key, value in (('gripper_closed', closed), ('gripper_open', opened)):
        proposal.how[key] = Line(value, 'DECIDE: which of the two values means closed'
                                 if key == 'gripper_closed' else '')
    proposal.actions += [
        Line({'name': 'arm', 'kind': 'ee_delta', 'size': 6, 'frame': 'base'},
             f'{twists[0].name}, {twists[0].rate_hz:.1f} Hz. DECIDE: in the axes of the base or '
             'of the tool'),
        Line({'name': 'gripper', 'kind': 'gripper', 'size': 1, 'binary': True}, hands[0].name)]
    return True


def _state_name(topic: Topic, taken: Sequence[str], numbers: Sequence[Topic]) -> str:
    """Return the usual name where a topic is the only one of its type, else the topic's."""
    usual = next((name for name, stream in USUAL.items() if stream.msgtype == topic.msgtype), '')
    alike = [other for other in numbers if other.msgtype == topic.msgtype]
    if usual and (len(alike) == 1 or _base(topic) == USUAL[usual].topic):
        return free_name(usual, taken)
    return free_name(plain_name(topic.name), taken)


def _named(names: Sequence[str]) -> dict[str, list[str]]:
    return {'names': list(names)} if names else {}


def _add_command(proposal: Proposal, topic: Topic, sources: dict[str, Any]) -> None:
    """Propose a group for a topic of commands."""
    assert topic.values is not None
    name = free_name(plain_name(topic.name), list(sources))
    size = topic.values.shape[1]
    stream: dict[str, Any] = {'topic': _base(topic), 'msgtype': topic.msgtype}
    note = f'{topic.name}, {topic.rate_hz:.1f} Hz. DECIDE: is it this kind'
    if 'Twist' in topic.msgtype:
        group: dict[str, Any] = {'kind': 'ee_delta', 'size': 6, 'frame': 'base'}
        note += ' (displacements of one period in m and rad, not velocities), in which axes'
    elif 'Pose' in topic.msgtype:
        group = {'kind': 'ee_pose', 'size': 6}
    elif size == 1 and topic.msgtype != JOINT_STATE:
        group, scale = _gripper(topic.values[:, 0])
        stream |= scale
        note += f'; {_range(topic.values[:, 0])}: which value means closed'
    else:
        group = {'kind': 'joint_position', 'size': size} | _named(topic.names)
        stream |= _named(topic.names)
    proposal.actions.append(Line({'name': name, **group}, note + '?'))
    sources[name] = {'command': stream}


def _gripper(values: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a group for a gripper, and what makes its smallest value 0 and its largest 1."""
    low, high = float(values.min()), float(values.max())
    group: dict[str, Any] = {'kind': 'gripper', 'size': 1}
    if len(np.unique(values)) <= 2:
        group['binary'] = True
    scale = float(f'{high - low:.6g}')
    return group, {'offset': float(f'{low:.6g}'), 'scale': scale} if scale > 0 else {}


def _range(values: np.ndarray) -> str:
    return f'it goes from {values.min():.4g} to {values.max():.4g}'


def _add_measured(proposal: Proposal, measured: dict[str, Topic], states: dict[str, Any],
                  sources: dict[str, Any]) -> None:
    """Propose what the robot did next as its actions: joints, else a pose, and a gripper."""
    joints = next(((name, topic) for name, topic in measured.items()
                   if topic.msgtype == JOINT_STATE and topic.names), None)
    pose = next((name for name, topic in measured.items() if 'Pose' in topic.msgtype), None)
    fingers: list[tuple[Topic, int]] = []
    if joints is not None:
        name, topic = joints
        is_finger = [any(word in each.lower() for word in _FINGER) for each in topic.names]
        arm = [each for each, finger in zip(topic.names, is_finger) if not finger]
        fingers = [(topic, place) for place, finger in enumerate(is_finger) if finger]
        if arm:
            if len(arm) < len(topic.names):
                name = free_name('arm_position', list(states))
                states[name] = {'topic': _base(topic), 'msgtype': topic.msgtype, 'names': arm}
            sources['arm'] = {'state': name}
            proposal.actions.append(Line(
                {'name': 'arm', 'kind': 'joint_position', 'size': len(arm), 'names': arm},
                'No topic commands anything: where the joints were one period later. DECIDE: '
                'joint_delta and joint_velocity are made of them as well'))
    if 'arm' not in sources and pose is not None:
        sources['arm'] = {'state': pose}
        proposal.actions.append(Line(
            {'name': 'arm', 'kind': 'ee_pose', 'size': 6},
            'No topic commands anything: where the tool was one period later. DECIDE: ee_delta '
            '(with frame: base) is made of it as well'))
    single = [(topic, 0) for topic in measured.values()
              if topic.values is not None and topic.values.shape[1] == 1
              and any(word in topic.name.lower() for word in (*_FINGER, 'width', 'opening'))]
    for topic, place in (single or fingers)[:1]:
        _add_opening(proposal, topic, place, states, sources)


def _add_opening(proposal: Proposal, topic: Topic, place: int, states: dict[str, Any],
                 sources: dict[str, Any]) -> None:
    """Propose a gripper by what one number was next."""
    assert topic.values is not None
    values = topic.values[:, place]
    group, scale = _gripper(values)
    if not scale:
        return
    name = free_name('opening', list(states))
    states[name] = {'topic': _base(topic), 'msgtype': topic.msgtype,
                    **_named(topic.names[place:place + 1]), **scale}
    sources['gripper'] = {'state': name}
    proposal.actions.append(Line({'name': 'gripper', **group}, f'{topic.name}: {_range(values)}. '
                                 'DECIDE: 0 is to be closed, 1 open (offset, scale); binary?'))


def _add_words(proposal: Proposal, topics: Sequence[Topic]) -> None:
    """Propose where the words come from, and ways to cut a bag of several episodes."""
    texts = [topic for topic in topics if topic.texts]
    words = [topic for topic in texts
             if _WORDS & set(re.findall('[a-z]+', topic.name.lower()))]
    if len(words) == 1:
        values = dict(proposal.how['topics'].values)
        proposal.how['topics'] = Line({**values, 'instruction': _base(words[0])})
    else:
        proposal.how['instruction'] = Line('describe the task',
                                           'DECIDE: the words of every episode, or '
                                           'topics.instruction: no one topic looks like them')
    proposal.cuts = [{'by': 'marker', 'marker': _base(topic)} for topic in texts
                     if topic not in words and {'start', 'stop'} <= {
                         text.split()[0].lower() for text in topic.texts if text.split()}]
    proposal.cuts += [{'by': 'message'}] if words else []
    proposal.cuts += [{'by': 'pause'}, {'by': 'instruction'}]
