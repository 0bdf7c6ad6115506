"""What the recorder compares with what came: counting alone, without DDS."""

import pytest
from ros2_lstm_policy.ros.recorder.checks import Came, clock_problems, Expected, problems, Tally

BEGIN_NS = 1_700_000_000_000_000_000
EXPECTED = Expected(camera_gap_s=0.5, action_gap_s=3.0, action_period_s=0.1)
FRAMES = [number / 30 for number in range(120)]  # four seconds
ACTIONS = [number / 10 for number in range(40)]


def tally(times_s, stamps_s=(), is_stamped=True, clock_s=0.0, sequences=None):
    """Return what counts messages at these times after the beginning."""
    counted = Tally()
    for number, time_s in enumerate(times_s):
        time_ns = BEGIN_NS + int(time_s * 1e9)
        stamp_s = stamps_s[number] if stamps_s else time_s
        stamp_ns = BEGIN_NS + int((stamp_s + clock_s) * 1e9) if is_stamped else None
        counted.add(time_ns, time_ns + 10**6, stamp_ns,
                    sequences[number] if sequences else number + 1)
    return counted


def found(now_s=4.0, is_over=True, lost=(), **changes):
    """Return what is wrong with a whole episode of which some streams are others."""
    tallies = {'rgb': tally(FRAMES), 'hand_rgb': tally(FRAMES), 'arm_delta': tally(ACTIONS),
               'gripper_command': tally([time_s - 0.001 for time_s in ACTIONS],
                                        is_stamped=False)} | changes
    roles = {'arm_delta': 'arm', 'gripper_command': 'gripper'}
    came = {name: Came(f'/{name}', roles.get(name, 'camera'), one, dict(lost).get(name, 0))
            for name, one in tallies.items()}
    return '; '.join(problems(came, EXPECTED, BEGIN_NS, BEGIN_NS + int(now_s * 1e9), is_over))


def test_a_whole_episode_has_no_problem():
    """Nor while it lasts, nor before anything has come."""
    assert found() == found(is_over=False) == ''
    nothing = {name: Tally() for name in ('rgb', 'hand_rgb', 'arm_delta', 'gripper_command')}
    assert found(now_s=0.4, is_over=False, **nothing) == ''


@pytest.mark.parametrize(('changes', 'words'), [
    ({'rgb': Tally()}, 'no message came on /rgb'),
    ({'rgb': tally(FRAMES[:60])}, '/rgb ended after 2.0 s and has been silent for 2.0 s'),
    ({'rgb': tally(FRAMES[:40] + FRAMES[80:])}, '/rgb was silent for 1.4 s, 1.3 s after'),
    ({'rgb': tally(FRAMES[60:])}, '/rgb began 2.0 s after the first action'),
    ({'rgb': tally(FRAMES[:60] + FRAMES[60::6])}, 'much more slowly for 47% of the time'),
    ({'rgb': tally(FRAMES, [-BEGIN_NS / 1e9] * 120)}, '120 messages of /rgb have the header'),
    ({'rgb': tally(FRAMES, [*FRAMES[:60], *(f - 1.5 for f in FRAMES[60:])])},
     '1 messages of /rgb are stamped before the one before'),
    ({'rgb': tally(FRAMES, clock_s=-3.0)}, '/rgb is stamped 3.0 s behind'),
    ({'rgb': tally(FRAMES, clock_s=-1e9)}, 'two clocks; synchronise'),
    ({'rgb': tally(FRAMES, sequences=[n // 2 + 1 for n in range(120)])}, 'two publishers are'),
    ({'lost': {'rgb': 3}}, '3 messages of /rgb were lost'),
    ({'lost': {'arm_delta': 1}}, '1 messages of /arm_delta were lost'),
    ({'now_s': 8.0}, '/arm_delta ended after 3.9 s'),
    ({'arm_delta': tally([*ACTIONS[:5], *(a + 4 for a in ACTIONS)]), 'now_s': 8.0},
     '/arm_delta was silent for 3.6 s'),
    ({'arm_delta': tally(ACTIONS[::2])}, 'every 0.200 s; control_period_s says 0.1'),
    ({'gripper_command': tally([1.0], is_stamped=False)}, 'whose gripper is unknown')])
def test_what_is_missing_or_wrong_is_said(changes, words):
    """Each of these is refused, shifted or thinned out later, when the robot is gone."""
    assert words in found(**changes)


@pytest.mark.parametrize('changes', [
    {'gripper_command': tally([-0.1], is_stamped=False)},
    {'rgb': tally(FRAMES, sequences=[*range(50, 90), *range(1, 81)])},
    {'lost': {'rgb': 1}}])
def test_what_does_no_harm_is_no_problem(changes):
    """A gripper that says only what changes, a driver that began again, one frame in 120."""
    assert found(**changes) == ''


def test_a_simulator_that_waits_leaves_no_hole():
    """Its time stands still with it: all streams end at one stamp, however long ago."""
    slow = [6.0 * time_s for time_s in FRAMES]
    answered = [6.0 * time_s + 0.5 for time_s in ACTIONS]
    streams = {'rgb': tally(slow, FRAMES, clock_s=-1e9),
               'hand_rgb': tally(slow, FRAMES, clock_s=-1e9),
               'arm_delta': tally(answered, ACTIONS, clock_s=-1e9),
               'gripper_command': tally([time_s - 0.1 for time_s in answered], is_stamped=False)}
    assert found(now_s=60.0, **streams) == ''
    dead = streams | {'rgb': tally(slow[:60], FRAMES[:60], clock_s=-1e9)}
    assert '/rgb ended after 2.0 s' in found(now_s=60.0, **dead)


def test_two_clocks_are_seen_in_the_newest_messages_before_an_episode_begins():
    """What was heard earlier, from a simulator that is gone, says nothing about now."""
    camera = tally([*FRAMES, 5.0], [*[1e9] * 120, 5.0])
    came = {'rgb': Came('/rgb', 'camera', camera.of_newest()),
            'arm_delta': Came('/arm_delta', 'arm', tally([5.0]))}
    assert clock_problems(came) == []
    came['rgb'] = Came('/rgb', 'camera', camera)
    assert 'two clocks' in clock_problems(came)[0]
