"""Pictures and videos of episodes can be opened, and show what was seen and commanded."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from ros2_lstm_policy.evaluation import pictures
from ros2_lstm_policy.evaluation.pictures import Shot
from ros2_lstm_policy.evaluation.video import write_mp4
from ros2_lstm_policy.types import Action


def shots(count: int = 30) -> list[Shot]:
    """Return an episode of coloured images; the gripper closes at 10 and opens at 20."""
    def shot(i: int) -> Shot:
        images = {'static': np.full((48, 64, 3), (8 * i, 0, 0), np.uint8),
                  'hand': np.full((64, 64, 3), (0, 8 * i, 0), np.uint8)}
        arm = np.array([0.05, -0.02, -0.03, 0.0, 0.0, 0.4], np.float32)
        return Shot(images, Action.one_arm(arm, float(not 10 <= i < 20)), i)
    return [shot(i) for i in range(count)]


def test_a_contact_sheet_shows_both_ends_and_every_turn_of_the_gripper() -> None:
    """The moments that explain an episode are on it."""
    assert {0, 10, 20, 29} <= set(pictures._moments(shots(), 12))
    assert len(pictures._moments(shots(), 12)) <= 12
    assert pictures._moments(shots(1), 12) == [0]


def test_a_contact_sheet_is_written_as_a_png_that_can_be_opened(tmp_path: Path) -> None:
    """The colours are right, too: OpenCV writes BGR."""
    sheet = pictures.contact_sheet(shots(), 'pick up the milk, schön')
    pictures.save(tmp_path / 'new' / 'sheet.png', sheet)
    read = cv2.cvtColor(cv2.imread(str(tmp_path / 'new' / 'sheet.png')), cv2.COLOR_BGR2RGB)
    assert np.array_equal(read, sheet)


def test_a_drawn_shot_shows_both_cameras_and_differs_by_its_command() -> None:
    """Left the static camera, right the hand camera, below the command."""
    shot = shots()[25]
    picture = pictures.draw(shot)
    px = pictures.CAMERA_PX
    assert picture[px // 2, px // 2].tolist() == [200, 0, 0]
    assert picture[px // 2, px + px // 2].tolist() == [0, 200, 0]
    closed = pictures.draw(Shot(shot.images, Action.one_arm(shot.action.arm, 0.0), shot.step))
    assert not np.array_equal(picture[px:], closed[px:])
    assert np.array_equal(picture[:px], closed[:px])


def test_a_shot_without_a_camera_or_a_command_can_be_drawn() -> None:
    """A static-camera policy has no hand image; a last observation has no command."""
    shot = Shot({'static': np.zeros((8, 8, 3), np.uint8)}, None, 0)
    assert pictures.draw(shot, ('static', 'hand')).shape == pictures.draw(shots()[0]).shape


@pytest.mark.parametrize('count', [1, 30])
def test_a_video_has_every_shot_once(tmp_path: Path, count: int) -> None:
    """H.264 in yuv420p, which any player shows, at the control rate."""
    import av
    write_mp4(tmp_path / 'episode.mp4', shots(count), 'title', rate_hz=10)
    with av.open(str(tmp_path / 'episode.mp4')) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ('h264', 'yuv420p')
        assert stream.average_rate == 10
        assert sum(1 for _ in container.decode(stream)) == count


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    """An episode without a frame has no picture; it says so."""
    with pytest.raises(ValueError, match='at least one shot'):
        pictures.contact_sheet([], 'title')
    with pytest.raises(ValueError, match=r'episode.mp4.*at least one shot'):
        write_mp4(tmp_path / 'episode.mp4', [], 'title', 10)
