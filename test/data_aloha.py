"""LeRobot datasets of two arms, as ALOHA's: 14 joints as action and as state, three cameras."""

from collections.abc import Callable
import json
from pathlib import Path

import numpy as np
from ros2_lstm_policy.manifest import ActionGroup, StateSpec

ARM_JOINTS = ('waist', 'shoulder', 'elbow', 'forearm_roll', 'wrist_angle', 'wrist_rotate',
              'gripper')
LEFT, RIGHT = (tuple(f'{side}_{joint}' for joint in ARM_JOINTS) for side in ('left', 'right'))
CAMERAS = ('cam_high', 'cam_left_wrist', 'cam_right_wrist')
WORDS = 'hand the cube over'
GROUPS = (ActionGroup('left_arm', 'joint_position', 7, names=LEFT),
          ActionGroup('right_arm', 'joint_position', 7, names=RIGHT))
STATES = (StateSpec('state', 14),)
FPS = 50


def action_of(step: int) -> list[float]:
    """Return the 14 joints that are commanded at a step: all their own."""
    return (0.01 * np.arange(1, 15) * np.sin(0.1 * step + 1)).astype(np.float32).tolist()


def state_of(step: int) -> list[float]:
    """Return the 14 joints at a step."""
    return (np.array(action_of(step - 1)) + 0.001).astype(np.float32).tolist()


def image(step: int, camera: str) -> np.ndarray:
    """Return an image of its own for each camera and step, which a codec keeps well."""
    y, x = np.mgrid[:24, :32]
    shift = 3 * step + 40 * CAMERAS.index(camera)
    return np.stack([(2 * x + shift) % 180 + 30, (3 * y + shift) % 180 + 30,
                     np.full_like(x, shift % 180 + 30)], -1).astype(np.uint8)


def write_aloha(root: Path, version: str = 'v3.0', names: object = (*LEFT, *RIGHT),
                state_names: object = (*LEFT, *RIGHT), length: int = 8,
                action: Callable[[int], list[float]] = action_of) -> Path:
    """Write a dataset of two episodes in one of LeRobot's versions."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from ros2_lstm_policy.data.lerobot.video import write_video
    from ros2_lstm_policy.data.lerobot.writer import DATA_PATH, VIDEO_PATH
    is_new = version == 'v3.0'
    video_path = VIDEO_PATH if is_new else 'videos/{video_key}/episode_{episode_index:06d}.mp4'
    data_path = DATA_PATH if is_new else 'data/episode_{episode_index:06d}.parquet'
    keys = {f'observation.images.{camera}': camera for camera in CAMERAS}
    width = np.size(action(0))
    features = {key: {'dtype': 'video', 'shape': [24, 32, 3]} for key in keys}
    features['action'] = {'dtype': 'float32', 'shape': [width], 'names': names}
    features['observation.state'] = {'dtype': 'float32', 'shape': [14], 'names': state_names}
    meta = root / 'meta'
    (meta / 'episodes' / 'chunk-000').mkdir(parents=True)
    (meta / 'info.json').write_text(json.dumps({
        'codebase_version': version, 'fps': FPS, 'features': features, 'chunks_size': 1000,
        'data_path': data_path, 'video_path': video_path}))
    rows = [{'action': action(step), 'observation.state': state_of(step),
             'timestamp': step / FPS, 'frame_index': step, 'episode_index': number,
             'index': number * length + step, 'task_index': 0}
            for number in range(2) for step in range(length)]
    files = {}
    lines = [{'episode_index': number, 'tasks': [WORDS], 'length': length} for number in range(2)]
    for number, line in enumerate(lines):
        place = {'episode_index': number, 'chunk_index': 0, 'file_index': 0}
        files.setdefault(root / data_path.format(**place), []).extend(
            rows[number * length:(number + 1) * length])
        line |= {'data/chunk_index': 0, 'data/file_index': 0}
        for key in keys:
            line |= {f'videos/{key}/chunk_index': 0, f'videos/{key}/file_index': 0,
                     f'videos/{key}/from_timestamp': number * length / FPS,
                     f'videos/{key}/to_timestamp': (number + 1) * length / FPS}
            if not is_new or number == 0:
                count = 2 * length if is_new else length
                write_video(root / video_path.format(video_key=key, **place),
                            (image(step % length, keys[key]) for step in range(count)), FPS)
    for path, part in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(part), path)
    if is_new:
        pq.write_table(pa.Table.from_pylist(lines),
                       meta / 'episodes' / 'chunk-000' / 'file-000.parquet')
        pq.write_table(pa.table({'task_index': [0], 'task': [WORDS]}), meta / 'tasks.parquet')
    else:
        (meta / 'episodes.jsonl').write_text('\n'.join(map(json.dumps, lines)))
        (meta / 'tasks.jsonl').write_text(json.dumps({'task_index': 0, 'task': WORDS}))
    return root
