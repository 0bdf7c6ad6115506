"""Tests of decoding image messages, live and recorded, good and bad."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from ros2_lstm_policy.messages import image_shape, image_to_rgb, ImageError, stamp_ns

CHANNELS = {'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'mono8': 1}


def image_message(array, encoding, padding=0, bigendian=0):
    """Return an Image with `padding` bytes after every row."""
    height, width = array.shape[:2]
    rows = np.ascontiguousarray(array).reshape(height, -1).view(np.uint8)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return SimpleNamespace(height=height, width=width, encoding=encoding, is_bigendian=bigendian,
                           step=padded.shape[1], data=padded.tobytes())


def random_image(channels, seed=0, dtype=np.uint8, shape=(12, 10)):
    """Return a reproducible image."""
    shape = shape if channels == 1 else (*shape, channels)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype,
                                                endpoint=True)


@pytest.mark.parametrize('encoding', CHANNELS)
def test_fast_path_equals_cv_bridge(encoding):
    """Every fast encoding gives cv_bridge's image, bit for bit."""
    cv_bridge = pytest.importorskip('cv_bridge')
    message = image_message(random_image(CHANNELS[encoding]), encoding)
    expected = cv_bridge.CvBridge().imgmsg_to_cv2(message, 'rgb8')
    np.testing.assert_array_equal(image_to_rgb(message), expected)


@pytest.mark.parametrize('encoding', CHANNELS)
def test_step_padding_never_reaches_the_image(encoding):
    """The same pixels with padded rows are the same image."""
    array = random_image(CHANNELS[encoding])
    np.testing.assert_array_equal(image_to_rgb(image_message(array, encoding, padding=6)),
                                  image_to_rgb(image_message(array, encoding)))


def test_rgb8_is_not_copied():
    """An rgb8 image is a view of the message's memory, whatever its step."""
    message = image_message(random_image(3), 'rgb8', padding=5)
    message.data = np.frombuffer(message.data, np.uint8).copy()
    assert np.shares_memory(image_to_rgb(message), message.data)


@pytest.mark.parametrize('encoding', ['rgb16', 'bgr16', 'rgba16', 'bgra16', 'mono16'])
@pytest.mark.parametrize('bigendian', [0, 1])
def test_sixteen_bits_honour_the_byte_order(encoding, bigendian):
    """A 16-bit image is the rounded 8-bit one in both byte orders."""
    eight = encoding.replace('16', '8')
    values = random_image(CHANNELS[eight], dtype=np.uint16)
    array = values.astype('>u2' if bigendian else '<u2')
    expected = np.rint(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(
        image_to_rgb(image_message(array, encoding, padding=4, bigendian=bigendian)),
        image_to_rgb(image_message(expected, eight)))


@pytest.mark.parametrize(('encoding', 'pattern'), [
    ('bayer_rggb8', 'rggb'), ('bayer_bggr8', 'bggr'), ('bayer_gbrg8', 'gbrg')])
def test_bayer_goes_through_cv_bridge(encoding, pattern):
    """A plain colour behind each mosaic comes back as that colour, padding or not."""
    pytest.importorskip('cv_bridge')
    colour = {'r': 200, 'g': 100, 'b': 50}
    mosaic = np.zeros((8, 8), np.uint8)
    for index, letter in enumerate(pattern):
        mosaic[index // 2::2, index % 2::2] = colour[letter]
    image = image_to_rgb(image_message(mosaic, encoding, padding=3))
    np.testing.assert_array_equal(image, np.tile(np.array([200, 100, 50], np.uint8), (8, 8, 1)))


@pytest.mark.parametrize(('extension', 'tolerance'), [('.png', 0), ('.jpg', 12)])
def test_compressed_images_are_decoded_to_rgb(extension, tolerance):
    """A PNG is exact and a JPEG close, with red first."""
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    rgb = np.stack([np.tile(ramp, (48, 1)), np.full((48, 64), 30, np.uint8),
                    np.full((48, 64), 90, np.uint8)], -1)
    data = cv2.imencode(extension, rgb[..., ::-1])[1].tobytes()
    image = image_to_rgb(SimpleNamespace(format=f'rgb8; {extension[1:]} compressed', data=data))
    assert np.abs(image.astype(int) - rgb).max() <= tolerance


def test_recorded_messages_decode_as_live_ones():
    """A message through rosbags' deserialiser gives the same image."""
    from rosbags.typesys import get_typestore, Stores
    store = get_typestore(Stores.ROS2_JAZZY)
    types = store.types
    stamp = types['builtin_interfaces/msg/Time'](sec=3, nanosec=4)
    live = image_message(random_image(3), 'bgr8', padding=2)
    message = types['sensor_msgs/msg/Image'](
        types['std_msgs/msg/Header'](stamp=stamp, frame_id='camera'), live.height, live.width,
        live.encoding, live.is_bigendian, live.step, np.frombuffer(live.data, np.uint8))
    read = store.deserialize_cdr(store.serialize_cdr(message, message.__msgtype__),
                                 message.__msgtype__)
    np.testing.assert_array_equal(image_to_rgb(read), image_to_rgb(live))
    assert stamp_ns(read) == 3_000_000_004


def broken(**changes):
    """Return a 10x12 rgb8 message with something wrong."""
    message = image_message(random_image(3), 'rgb8')
    message.__dict__.update(changes)
    return message


@pytest.mark.parametrize(('message', 'words'), [
    (broken(encoding='16UC1'), "'16UC1' 10x12: this encoding has no known colour; known: rgb8"),
    (broken(encoding=''), "'' 10x12: this encoding has no known colour"),
    (broken(step=29), 'step is 29 bytes, a row of 10 pixels needs 30'),
    (broken(data=b'12'), 'found 2 bytes of data, expected step x height = 30 x 12 = 360'),
    (broken(step=31), 'found 360 bytes of data, expected step x height = 31 x 12 = 372'),
    (broken(height=0), 'the image is empty'),
    (broken(width=0), 'the image is empty'),
    (broken(encoding='bayer_rggb8', width=31), 'step is 30 bytes, a row of 31 pixels needs 31'),
    (SimpleNamespace(format='jpeg', data=b''), "'jpeg': the image is empty"),
    (SimpleNamespace(format='jpeg', data=b'no image'), '8 bytes are no image'),
    (SimpleNamespace(format='16UC1; compressedDepth', data=b'1'), 'depth image has no colour'),
])
def test_a_bad_image_is_one_error_that_says_what_was_found(message, words):
    """Every error names what was found and wanted."""
    with pytest.raises(ImageError) as caught:
        image_to_rgb(message)
    assert words in str(caught.value)


def test_a_jpeg_cut_short_is_refused():
    """The decoder fills what is missing with grey, and says so on stderr only."""
    data = cv2.imencode('.jpg', random_image(3, shape=(60, 80)))[1].tobytes()
    with pytest.raises(ImageError, match='cut short'):
        image_to_rgb(SimpleNamespace(format='jpeg', data=data[:len(data) // 2]))


def test_padding_after_a_jpeg_is_no_harm_and_hides_no_cut():
    """Drivers publish buffers of a fixed size; cut and padded, it would pass for a whole one."""
    image = random_image(3, shape=(60, 80))
    data = cv2.imencode('.jpg', image)[1].tobytes()
    for rest in (b'', bytes(1), bytes(9000), b'12:34:56', b'12:34:56' + bytes(9000)):
        padded = image_to_rgb(SimpleNamespace(format='jpeg', data=data + rest))
        np.testing.assert_array_equal(padded, image_to_rgb(SimpleNamespace(
            format='jpeg', data=data)))
    for end in (len(data) // 2, len(data) - 1):
        for rest in (b'', bytes(500), bytes(9000)):
            with pytest.raises(ImageError, match='cut short'):
                image_to_rgb(SimpleNamespace(format='jpeg', data=data[:end] + rest))


def compressed(array, form, extension='.png'):
    """Return a CompressedImage of an array in OpenCV's order."""
    return SimpleNamespace(format=form, data=cv2.imencode(extension, array)[1].tobytes())


DEPTH = np.full((8, 8), 1500, np.uint16)


@pytest.mark.parametrize('form', [
    '16UC1; png compressed ', '32FC1; png compressed ', '16UC1; png compressed', '8UC1; png',
    '16UC1;png compressed 16UC1', '16UC1; compressedDepth png', 'png', '', 'rgb8; png'])
def test_depth_is_refused_however_it_is_compressed(form):
    """Decoded as an image it is a dark grey picture; raw 16UC1 is refused as well."""
    for function in (image_to_rgb, image_shape):
        with pytest.raises(ImageError, match='a depth image has no colour'):
            function(compressed(DEPTH, form))


@pytest.mark.parametrize('form', ['bayer_rggb8; png compressed ', 'bayer_rggb8; png compressed',
                                  'rgb8; png compressed bayer_rggb8'])
def test_a_compressed_mosaic_is_the_image_that_the_raw_one_is(form):
    """Decoded as grey it is a checkerboard."""
    pytest.importorskip('cv_bridge')
    mosaic = random_image(1, shape=(8, 10))
    np.testing.assert_array_equal(image_to_rgb(compressed(mosaic, form)),
                                  image_to_rgb(image_message(mosaic, 'bayer_rggb8')))


@pytest.mark.parametrize('form', ['bayer_rggb8; jpeg compressed bgr8', 'rgb8; png compressed bgr8',
                                  'bayer_rggb8; png compressed ', 'png', '8UC3; png compressed '])
def test_colour_that_was_compressed_is_colour(form):
    """Whatever the camera's own encoding was before."""
    bgr = np.tile(np.array([30, 60, 200], np.uint8), (16, 16, 1))
    image = image_to_rgb(compressed(bgr, form, '.jpg' if 'jpeg' in form else '.png'))
    assert np.abs(image.astype(int) - bgr[..., ::-1]).max() <= 3


def test_grey_and_deep_colours_are_scaled_as_raw_ones():
    """16 bits of mono16 and of colour, and an alpha channel."""
    grey = random_image(1, dtype=np.uint16)
    np.testing.assert_array_equal(image_to_rgb(compressed(grey, 'mono16; png compressed ')),
                                  image_to_rgb(image_message(grey, 'mono16')))
    deep = random_image(3, dtype=np.uint16)
    np.testing.assert_array_equal(image_to_rgb(compressed(deep, 'bgr16; png compressed bgr16')),
                                  image_to_rgb(image_message(deep, 'bgr16')))
    alpha = random_image(4)
    np.testing.assert_array_equal(image_to_rgb(compressed(alpha, 'bgra8; png compressed bgra8')),
                                  image_to_rgb(image_message(alpha, 'bgra8')))


def test_the_size_is_known_without_decoding():
    """And what is no image is refused for the same reason."""
    assert image_shape(compressed(random_image(3), 'rgb8; jpeg compressed bgr8', '.jpg')) == (
        12, 10, 3)
    assert image_shape(image_message(random_image(1), 'mono8', padding=3)) == (12, 10, 3)
    for message, words in ((broken(step=29), 'step is 29'), (broken(encoding='16UC1'), '16UC1'),
                           (SimpleNamespace(format='h264', data=bytes(9)), 'a video stream')):
        with pytest.raises(ImageError, match=words):
            image_shape(message)
