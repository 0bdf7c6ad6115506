"""Builds small recordings of every format, whole ones and broken ones, for the tests."""

from collections.abc import Callable
from dataclasses import dataclass
import json
from pathlib import Path

import numpy as np
from ros2_lstm_policy.data.lerobot.names import ACTION_NAMES
from ros2_lstm_policy.data.rosbag import BagFile, EpisodeBagWriter, EpisodeInfo, format as bag
from ros2_lstm_policy.manifest import (CameraSpec, DEFAULT_CAMERAS as CAMERAS, Manifest,
                                       Normalisation, one_arm)

START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 100_000_000
WORDS = 'pick up the milk and put it in the basket'


def manifest(size: int = 16) -> Manifest:
    """Return a manifest of two small cameras at 10 Hz."""
    cameras = tuple(CameraSpec(name, size, size, 'area', (0.5,) * 3, (0.5,) * 3)
                    for name in CAMERAS)
    return one_arm('base', 'rotation_vector', 0.1,
                   Normalisation((0.0,) * 6, (0.05,) * 6), cameras)


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
    image: Callable[[int, str], np.ndarray] = smooth_image


def write_bag(path: Path, recipe: BagRecipe | None = None, **changes: object) -> Path:
    """Write a bag of the recorder's format."""
    recipe = recipe or BagRecipe(**changes)
    known = info(path.name, stamps=recipe.stamps)
    with EpisodeBagWriter(path, known, recipe.words, START_NS, jpeg=recipe.jpeg) as writer:
        for step in range(recipe.steps):
            for camera in CAMERAS:
                stamp = recipe.image_stamp(step, camera)
                if stamp is not None:
                    writer.write_frame(camera, stamp, recipe.image(step, camera))
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


def write_lerobot_v21(root: Path, episodes: int = 2, steps: int = 10,
                      image: Callable[[int, str], np.ndarray] = smooth_image) -> Path:
    """Write a LeRobot v2.1 dataset at 10 frames a second, as its older recorders did."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from ros2_lstm_policy.data.lerobot.video import write_video
    keys = {'observation.images.static': 'static', 'observation.images.hand': 'hand'}
    features = {key: {'dtype': 'video', 'shape': [24, 32, 3]} for key in keys}
    features['action'] = {'dtype': 'float32', 'shape': [7], 'names': list(ACTION_NAMES)}
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
                        (image(step, camera) for step in range(steps)), 10)
    return root


def write_lerobot_v30(root: Path, lengths: tuple[int, ...] = (6, 6, 6),
                      spans: tuple[tuple[float, float], ...] | None = None,
                      frames: int | None = None) -> Path:
    """
    Write a LeRobot v3.0 dataset at 10 frames a second with all episodes in one file, as theirs.

    :param spans: from and to of each episode in the video in s; None for what is right.
    :param frames: frames of the video; None for as many as there are rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from ros2_lstm_policy.data.lerobot.video import write_video
    from ros2_lstm_policy.data.lerobot.writer import DATA_PATH, VIDEO_PATH
    keys = {'observation.images.static': 'static', 'observation.images.hand': 'hand'}
    features = {key: {'dtype': 'video', 'shape': [24, 32, 3]} for key in keys}
    features['action'] = {'dtype': 'float32', 'shape': [7], 'names': list(ACTION_NAMES)}
    (root / 'meta' / 'episodes' / 'chunk-000').mkdir(parents=True)
    (root / 'meta' / 'info.json').write_text(json.dumps({
        'codebase_version': 'v3.0', 'fps': 10, 'chunks_size': 1000, 'features': features,
        'total_episodes': len(lengths), 'total_frames': sum(lengths),
        'data_path': DATA_PATH, 'video_path': VIDEO_PATH}))
    pq.write_table(pa.table({'task_index': [0], '__index_level_0__': [WORDS]}),
                   root / 'meta' / 'tasks.parquet')
    begins = np.cumsum([0, *lengths[:-1]]).tolist()
    lines, rows = [], []
    for number, (begin, length) in enumerate(zip(begins, lengths)):
        first, last = spans[number] if spans else (begin / 10, (begin + length) / 10)
        line = {'episode_index': number, 'tasks': [WORDS], 'length': length,
                'dataset_from_index': begin, 'dataset_to_index': begin + length,
                'data/chunk_index': 0, 'data/file_index': 0}
        for key in keys:
            line |= {f'videos/{key}/chunk_index': 0, f'videos/{key}/file_index': 0,
                     f'videos/{key}/from_timestamp': first, f'videos/{key}/to_timestamp': last}
        lines.append(line)
        rows += [{'action': [*arm_of(begin + step).tolist(), float(step % 2)],
                  'timestamp': step / 10, 'frame_index': step, 'episode_index': number,
                  'index': begin + step, 'task_index': 0} for step in range(length)]
    pq.write_table(pa.Table.from_pylist(lines),
                   root / 'meta' / 'episodes' / 'chunk-000' / 'file-000.parquet')
    data = root / DATA_PATH.format(chunk_index=0, file_index=0)
    data.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), data)
    for key, camera in keys.items():
        write_video(root / VIDEO_PATH.format(video_key=key, chunk_index=0, file_index=0),
                    (smooth_image(step, camera) for step in range(frames or sum(lengths))), 10)
    return root


def rewrite_rows(root: Path, change: Callable[[dict], object]) -> Path:
    """Change the rows of the first episode of a LeRobot v2.1 dataset."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    path = root / 'data' / 'chunk-000' / 'episode_000000.parquet'
    table = pq.read_table(path)
    columns = table.to_pydict()
    change(columns)
    kept = {name: table.schema.field(name).type for name in table.column_names}
    arrays = {}
    for name, values in columns.items():
        try:
            arrays[name] = pa.array(values, kept.get(name))
        except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError):  # of another type on purpose
            arrays[name] = pa.array(values)
    pq.write_table(pa.table(arrays), path)
    return root


def rewrite_info(root: Path, change: Callable[[dict], object]) -> Path:
    """Change the info.json of a LeRobot dataset."""
    path = root / 'meta' / 'info.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return root


class RunsCode:
    """Would create a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        """Remember the file."""
        self.path = path

    def __reduce__(self) -> tuple:
        """Ask the unpickler to call `Path.touch`."""
        return Path.touch, (self.path,)
