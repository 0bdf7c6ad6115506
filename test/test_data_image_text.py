"""Image-text pairs that cannot be read are named by their line or their file."""

import json

import numpy as np
from PIL import Image
import pytest
from ros2_lstm_policy.data.image_text import PairSet
from ros2_lstm_policy.manifest import CameraSpec

CAMERA = CameraSpec('static', 8, 8, 'area', (0.5,) * 3, (0.5,) * 3)


def write_pairs(folder, *lines):
    """Write one image and a list of pairs."""
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.full((6, 6, 3), 9, np.uint8)).save(folder / 'a.png')
    (folder / 'metadata.jsonl').write_bytes(b'\n'.join(lines))
    return folder


@pytest.mark.parametrize('line', [
    b'{"file_name": null, "text": "a"}', b'{"file_name": ["a.png"], "text": "a"}', b'[]', b'3',
    b'{"file_name": "a.png", "text": null}', b'{"file_name": "a.png", "text": ["a"]}',
    b'{"file_name": "b.png", "text": "a"}', b'{"file_name": "a.png"', b'{"text": "a"}'])
def test_a_line_of_another_type_is_named(tmp_path, line):
    """By its number, before anything is trained."""
    folder = write_pairs(tmp_path / 'pairs', b'{"file_name": "a.png", "text": "a"}', line)
    with pytest.raises(ValueError, match='metadata.jsonl:2: '):
        PairSet.load(folder, CAMERA)


def test_a_list_that_is_no_text_is_named(tmp_path):
    """Bytes of another encoding."""
    with pytest.raises(ValueError, match='pairs: expected metadata.jsonl'):
        PairSet.load(write_pairs(tmp_path / 'pairs', b'\xff\xfe\x00'), CAMERA)


@pytest.mark.parametrize('keep', [0, 30])
def test_an_image_that_cannot_be_decoded_is_named(tmp_path, keep):
    """A download that stopped: one line with the file, also in the middle of training."""
    folder = write_pairs(tmp_path / 'pairs', json.dumps(
        {'file_name': 'a.png', 'text': 'a'}).encode())
    pairs = PairSet.load(folder, CAMERA)
    (folder / 'a.png').write_bytes((folder / 'a.png').read_bytes()[:keep])
    with pytest.raises(ValueError, match=r'a.png: expected an image'):
        pairs.gather(np.array([0]))
