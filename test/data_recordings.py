"""Builds small recordings of every format, whole ones and broken ones, for the tests."""

from collections.abc import Callable
from dataclasses import dataclass
import json
from pathlib import Path

import numpy as np
from ros2_lstm_policy.data.rosbag import BagFile, EpisodeBagWriter, EpisodeInfo
from ros2_lstm_policy.data.rosbag import format as bag
from ros2_lstm_policy.manifest import ActionManifest, ArmNormalisation, CameraSpec
from ros2_lstm_policy.types import CAMERAS

START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 100_000_000
WORDS = 'pick up the milk and put it in the basket'


def manifest(size: int = 16) -> ActionManifest:
    """Return a manifest of two small cameras at 10 Hz."""
    cameras = tuple(CameraSpec(name, size, size, 'area', (0.5,) * 3, (0.5,) * 3)
                    for name in CAMERAS)
    return ActionManifest('base', 'rotation_vector', 0.1,
                          ArmNormalisation((0.0,) * 6, (0.05,) * 6), cameras)


def info(name: str, **changes: object) -> EpisodeInfo:
    """Return what is known about an expert's episode."""
    values = {'actor': 'expert', 'frame': 'base', 'rotation': 'rotation_vector',
              'control_period_s': 0.1} | changes
    return EpisodeInfo(name, **values)


def smooth_image(step: int, camera: str, height: int = 24, width: int = 32) -> np.ndarray:
    """Return an image that a video codec keeps well and that differs from step to step."""
    y, x = np.mgrid[:height, :width]
    shift = 3 * step + 40 * CAMERAS.index(camera)
    return np.stack([(2 * x + shift) % 180 + 30, (3 * y + shift) % 180 + 30,
                     np.full_like(x, (5 * shift) % 180 + 30)], -1).astype(np.uint8)


def arm_of(step: int) -> np.ndarray:
    """Return the arm delta of a step: all its own."""
    return (0.001 * np.arange(1, 7) * np.sin(step + 1)).astype(np.float32)


@dataclass
class BagRecipe:
    """
    What is in a bag, and what goes wrong in it.

    :param image_stamp: step and camera to the frame's stamp, None to drop it.
    :param action: step to arm, gripper and stamp; None for no action.
    """

    steps: int = 12
    jpeg: bool = False
    success: bool | None = True
    words: str = WORDS
    image_stamp: Callable[[int, str], int | None] = lambda step, camera: (
        START_NS + step * PERIOD_NS)
    arm: Callable[[int], np.ndarray] = arm_of
    gripper: Callable[[int], float] = lambda step: float(step % 2)
    action_stamp: Callable[[int], int] = lambda step: START_NS + step * PERIOD_NS
    stamps: str = 'observation'


def write_bag(path: Path, recipe: BagRecipe | None = None, **changes: object) -> Path:
    """Write a bag of the recorder's format."""
    recipe = recipe or BagRecipe(**changes)
    known = info(path.name, stamps=recipe.stamps)
    with EpisodeBagWriter(path, known, recipe.words, START_NS, jpeg=recipe.jpeg) as writer:
        for step in range(recipe.steps):
            for camera in CAMERAS:
                stamp = recipe.image_stamp(step, camera)
                if stamp is not None:
                    writer.write_frame(camera, stamp, smooth_image(step, camera))
            writer.write_action(recipe.action_stamp(step), recipe.arm(step), recipe.gripper(step))
        if recipe.success is not None:
            writer.label(recipe.success)
    return path


def write_velocity_bag(path: Path, rate_hz: float = 50.0, seconds: float = 1.0) -> Path:
    """Write a foreign bag: Servo velocities, a namespace, no label and no instruction."""
    file = BagFile(path)
    topics = {'/cell/rgb': bag.IMAGE, '/cell/hand_rgb': bag.IMAGE,
              '/servo/delta_twist_cmds': bag.TWIST, '/gripper/commands': bag.GRIPPER}
    for topic, msgtype in topics.items():
        file.add_topic(topic, msgtype)
    vector = file.message('geometry_msgs/msg/Vector3', x=0.1, y=0.0, z=-0.2)
    twist = file.message('geometry_msgs/msg/Twist', linear=vector, angular=vector)
    layout = file.message('std_msgs/msg/MultiArrayLayout', dim=[], data_offset=0)
    for tick in range(int(seconds * rate_hz)):
        stamp = START_NS + round(tick * 1e9 / rate_hz)
        if tick % 2 == 0:
            for topic, camera in (('/cell/rgb', 'static'), ('/cell/hand_rgb', 'hand')):
                image = smooth_image(tick, camera)
                file.write(topic, stamp, file.serialise(
                    bag.IMAGE, header=file.header(stamp), height=image.shape[0],
                    width=image.shape[1], encoding='rgb8', is_bigendian=0,
                    step=3 * image.shape[1], data=image.reshape(-1)))
        file.write('/gripper/commands', stamp, file.serialise(
            bag.GRIPPER, layout=layout, data=np.array([-1.0 if tick < 25 else 1.0])))
        file.write('/servo/delta_twist_cmds', stamp, file.serialise(
            bag.TWIST, header=file.header(stamp), twist=twist))
    return file.close()


def write_calvin(root: Path, steps: int = 20, spans: tuple = ((100, 107), (110, 119)),
                 content: object = None) -> Path:
    """Write a CALVIN folder whose steps are numbered from 100."""
    root.mkdir(parents=True)
    np.save(root / 'ep_start_end_ids.npy', np.array([[100, 100 + steps - 1]]))
    (root / 'lang_annotations').mkdir()
    annotations = content if content is not None else {
        'language': {'ann': [f'push the block {n}' for n in range(len(spans))],
                     'task': ['push'] * len(spans), 'emb': np.zeros((len(spans), 1, 4))},
        'info': {'episodes': [], 'indx': list(spans)}}
    array = np.empty((), dtype=object)
    array[()] = annotations
    np.save(root / 'lang_annotations' / 'auto_lang_ann.npy', array, allow_pickle=True)
    for step in range(steps):
        np.savez(root / f'episode_{100 + step:07d}.npz',
                 rgb_static=smooth_image(step, 'static'), rgb_gripper=smooth_image(step, 'hand'),
                 rel_actions=np.append(np.linspace(-1, 1, 6), 1.0 if step % 2 else -1.0))
    return root


def write_libero(path: Path, demos: int = 2, steps: int = 9) -> Path:
    """Write a file of LIBERO demonstrations; images lie bottom row first as there."""
    import h5py
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, 'w') as file:
        data = file.create_group('data')
        data.attrs['problem_info'] = json.dumps({'language_instruction': WORDS})
        data.attrs['env_args'] = json.dumps({'env_kwargs': {'control_freq': 20}})
        for demo in range(demos):
            group = data.create_group(f'demo_{demo}')
            actions = np.linspace(-1, 1, 7 * steps).reshape(steps, 7)
            actions[:, 6] = np.where(np.arange(steps) % 2, 1, -1)
            group['actions'] = actions
            group['dones'] = np.eye(1, steps, steps - 1, dtype=np.uint8)[0]
            for key, camera in (('agentview_rgb', 'static'), ('eye_in_hand_rgb', 'hand')):
                group[f'obs/{key}'] = np.stack(
                    [smooth_image(step, camera)[::-1] for step in range(steps)])
    return path


def write_lerobot_v21(root: Path, episodes: int = 2, steps: int = 10) -> Path:
    """Write a LeRobot v2.1 dataset at 10 frames a second, as its older recorders did."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from ros2_lstm_policy.data.lerobot.video import write_video
    keys = {'observation.images.static': 'static', 'observation.images.hand': 'hand'}
    features = {key: {'dtype': 'video', 'shape': [24, 32, 3]} for key in keys}
    features['action'] = {'dtype': 'float32', 'shape': [7]}
    (root / 'meta').mkdir(parents=True)
    (root / 'meta' / 'info.json').write_text(json.dumps({
        'codebase_version': 'v2.1', 'fps': 10, 'chunks_size': 1000, 'features': features,
        'data_path': 'data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet',
        'video_path': 'videos/chunk-{episode_chunk:03d}/{video_key}/'
                      'episode_{episode_index:06d}.mp4'}))
    (root / 'meta' / 'tasks.jsonl').write_text(json.dumps({'task_index': 0, 'task': WORDS}))
    (root / 'meta' / 'episodes.jsonl').write_text('\n'.join(json.dumps(
        {'episode_index': n, 'tasks': [WORDS], 'length': steps}) for n in range(episodes)))
    (root / 'data' / 'chunk-000').mkdir(parents=True)
    for number in range(episodes):
        actions = [[*arm_of(step).tolist(), float(step % 2)] for step in range(steps)]
        pq.write_table(pa.table({
            'action': pa.array(actions, pa.list_(pa.float32())),
            'timestamp': pa.array(np.arange(steps, dtype=np.float32) / 10),
            'frame_index': np.arange(steps), 'episode_index': np.full(steps, number),
            'index': number * steps + np.arange(steps), 'task_index': np.zeros(steps, int)}),
            root / 'data' / 'chunk-000' / f'episode_{number:06d}.parquet')
        for key, camera in keys.items():
            write_video(root / 'videos' / 'chunk-000' / key / f'episode_{number:06d}.mp4',
                        (smooth_image(step, camera) for step in range(steps)), 10)
    return root


class RunsCode:
    """Would create a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        """Remember the file."""
        self.path = path

    def __reduce__(self) -> tuple:
        """Ask the unpickler to call `Path.touch`."""
        return Path.touch, (self.path,)
