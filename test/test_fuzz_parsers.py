"""
Every parser of data from outside takes damaged inputs or refuses them as it says, and returns.

The short form: the same inputs at every run. benchmarks/fuzz.py draws as many as one likes.
"""

from types import SimpleNamespace
import zlib

import cv2
from fuzz_parsers import attempt, targets
from hypothesis import given, HealthCheck, settings
from hypothesis import strategies as st
import msgpack
import numpy as np
import pytest
from ros2_lstm_policy.messages import image_to_rgb, ImageError
from ros2_lstm_policy.model.backbones.compact.packaged import PackagedFiles, WeightsError
from ros2_lstm_policy.serving.wire import unpack, WireError

NUMBER = st.integers(0, 2**32 - 1)
DAMAGE = st.lists(st.tuples(NUMBER, NUMBER, NUMBER), min_size=1, max_size=4)
# By what one input costs: the whole file takes some twenty seconds.
TRIES = {'LeRobot 2.1': 15, 'LeRobot 3.0': 15, 'bag, MCAP': 40, 'bag, JPEG': 40,
         'bag, SQLite': 40, 'CALVIN': 60, 'LIBERO HDF5': 60, 'checkpoint, its texts': 25}


@pytest.fixture(scope='module')
def parsers(tmp_path_factory):
    """Return every parser with its good inputs."""
    return targets(tmp_path_factory.mktemp('corpus'))


@pytest.mark.parametrize('name', [
    'image message', 'compressed image message', 'numbers of messages', 'wire',
    'YAML of a manifest', 'YAML of a policy', 'JSON', 'RoboVLMs configuration', 'bag, MCAP',
    'bag, JPEG', 'bag, SQLite', 'CALVIN', 'LeRobot 2.1', 'LeRobot 3.0', 'LIBERO HDF5',
    'checkpoint, its texts', 'checkpoint, its weights', 'RoboVLMs weights'])
def test_a_damaged_input_is_taken_or_refused_as_documented(parsers, name):
    """Any other exception, or no answer within twenty seconds, is a fault."""
    target = parsers[name]
    for number in range(len(target.corpus)):
        # an image of depth has no colour, and numbers are asked for by names that are not there
        assert attempt(target, number, []) or name in ('image message', 'numbers of messages')

    @settings(max_examples=TRIES.get(name, 120), derandomize=True, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))
    @given(number=st.integers(0, len(target.corpus) - 1), operations=DAMAGE)
    def damage(number, operations):
        attempt(target, number, operations)
    damage()


@pytest.mark.parametrize('side', [5000, 30000])
def test_a_few_bytes_that_claim_a_huge_image_take_no_memory(side):
    """A PNG of 100 bytes with another number in its header took 4 GB and more than 20 s."""
    data = bytearray(cv2.imencode('.png', np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    data[16:24] = side.to_bytes(4, 'big') * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, 'big')
    with pytest.raises(ImageError, match='pixels'):
        image_to_rgb(SimpleNamespace(format='png', data=bytes(data)))


@pytest.mark.parametrize('tail', [b'\x01', b'\xff\xff'])
def test_a_bad_array_in_bytes_that_are_no_message_is_one_documented_error(tail):
    """The number of the question was looked for in what could not be read: a ValueError."""
    bad = msgpack.packb({'payload': {'__ndarray__': True, 'dtype': 'none'}, 'seq': 3})
    with pytest.raises(WireError):
        unpack(bad + tail)
    with pytest.raises(WireError) as caught:
        unpack(bad)
    assert caught.value.seq == 3


@pytest.mark.parametrize(('package', 'file'), [
    ('antigravity.x', 'a'), ('', 'a'), ('../x', 'a'), ('numpy', '../../secret'),
    ('numpy', '/etc/passwd')])
def test_a_checkpoint_names_no_package_that_would_be_imported_and_no_file_outside(package, file):
    """The search for `antigravity.x` imports `antigravity`, which opens a browser."""
    with pytest.raises(ValueError, match='expected'):
        PackagedFiles(package, 'x==1', (file,), '0' * 64)


def test_a_file_name_that_no_disk_takes_is_one_documented_error():
    """It was an OSError of pathlib."""
    with pytest.raises(WeightsError, match='cannot be read'):
        PackagedFiles('numpy', 'x==1', ('9' * 400,), '0' * 64).paths()
