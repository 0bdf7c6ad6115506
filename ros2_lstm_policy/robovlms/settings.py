"""
The configuration of a RoboVLMs run: the keys that decide what its network and its numbers are.

Keys of optimisers, loggers and folders are left unread. Every key that changes the meaning of an
action or an image is read with its type, and a value that no import can follow is refused: the
configuration holds it once, and nothing else in a checkpoint would tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ros2_lstm_policy import config
from ros2_lstm_policy.kinds import ACTION_DIM
from ros2_lstm_policy.robovlms.files import RoboVLMsError

MU = 255.0
FAMILIES = {'kosmos': 'kosmos2', 'paligemma': 'paligemma'}
CALVIN, OPEN_X = 'DiskCalvinDataset', 'OpenVLADataset'
# What a data set section may hold without changing what an action or an image means. Settings of
# the normalisation are overruled by those of the whole run, in the reference too.
_HARMLESS = {
    CALVIN: {'type', 'data_dir', 'model_name', 'tokenizer_type', 'shift_first', 'rgb_pad',
             'gripper_pad', 'traj_cons', 'few_shot', 'exclude_tasks', 'partial_data',
             'skip_frames', 'save_format', 'pretrain', 'lang_folder', 'text_aug', 'sampler',
             'num_workers', 'batch_size', 'window_size', 'is_training', 'norm_action', 'norm_min',
             'norm_max', 'regular_action', 'use_mu_law', 'mu_val', 'tcp_rel'},
    OPEN_X: {'type', 'data_root_dir', 'data_mix', 'model_name', 'tokenizer_type', 'image_aug',
             'mode', 'window_sample', 'organize_type', 'shuffle_buffer_size', 'train',
             'filter_langs', 'window_size', 'is_training', 'norm_action', 'norm_min', 'norm_max',
             'regular_action', 'use_mu_law', 'mu_val', 'tcp_rel'}}


@dataclass(frozen=True)
class Head:
    """The run's `act_head`."""

    action_dim: int
    down_sample: Literal['none', 'pooling']
    hidden_size: int = 1024
    num_layers: int = 4
    latent: int = 1
    policy_rnn_dropout_p: float = 0.0
    action_space: str = 'continuous'
    token_source: str = 'all'
    history_type: str = 'post'
    with_history: bool = True
    fill_zero: bool = False


@dataclass(frozen=True)
class Run:
    """
    What the import reads of a configuration; defaults are the reference's.

    :param data: the type of the data set that it was trained on.
    """

    model: str
    image_size: int
    window_size: int
    fwd_pred_next_n: int
    use_hand_rgb: bool
    act_head: Head
    data: str
    norm_action: bool = False
    norm_min: float = -1.0
    norm_max: float = 1.0
    use_mu_law: bool = False
    mu_val: float = MU
    tcp_rel: bool = False
    regular_action: bool = False
    use_vision_resampler: bool = False
    use_state: bool = False
    arm_gripper_loss_ratio: float = 0.01
    robovlm_name: str = 'A policy'
    task_name: str = 'unknown'


def parse(values: Mapping[str, Any], where: Path) -> Run:
    """
    Read a configuration.

    :param values: as :func:`.robovlms_files.read_configuration` returns it.
    :param where: its file, for errors.
    :raises ValueError: for a key that is absent, of another type or that no import can follow.
    """
    head = values.get('act_head')
    if head is not None and not isinstance(head, dict):
        raise RoboVLMsError(f'{where}: act_head: expected keys and values, found '
                            f'{type(head).__name__} {head!r}')
    _refuse_unknown_parts(values, head or {}, where)
    known = _known(Run, values) | {'data': _data(values, where)}
    if head is not None:
        known['act_head'] = _known(Head, head)
    run = config.parse(Run, known, str(where))
    if run.norm_action:
        _check_range(run, known, where)
    if run.mu_val <= 0:
        raise RoboVLMsError(f'{where}: mu_val {run.mu_val:g} is not above 0')
    if run.data == OPEN_X:
        _check_open_x(run, where)
    return run


def _known(cls: type[Head | Run], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the class has a field for; null is how the reference writes "not set"."""
    names = {f.name for f in fields(cls)}
    return {key: value for key, value in values.items() if key in names and value is not None}


def _refuse_unknown_parts(values: Mapping[str, Any], head: Mapping[str, Any],
                          where: Path) -> None:
    wanted: dict[str, tuple[Any, tuple[Any, ...]]] = {
        'model': (values.get('model'), tuple(FAMILIES)),
        'act_head.type': (head.get('type'), ('LSTMDecoder',)),
        'act_head.history_type': (head.get('history_type', 'post'), ('post',)),
        'act_head.action_space': (head.get('action_space', 'continuous'),
                                  ('continuous', 'down_sample')),
        'act_head.action_dim': (head.get('action_dim'), (ACTION_DIM,)),
        'act_head.with_history': (head.get('with_history') in (None, True), (True,)),
        'act_head.fill_zero': (bool(head.get('fill_zero')), (False,)),
        'act_encoder': (values.get('act_encoder'), (None,)),
        'fwd_head': (values.get('fwd_head'), (None,)),
        'regular_action': (bool(values.get('regular_action')), (False,)),
        'use_state': (bool(values.get('use_state')), (False,)),
        'use_vision_resampler': (bool(values.get('use_vision_resampler')), (False,)),
    }
    if values.get('act_head') is None:
        raise RoboVLMsError(f"{where}: missing key 'act_head'; is it the configuration of this "
                            'RoboVLMs run?')
    for key, (found, known) in wanted.items():
        if found not in known:
            raise RoboVLMsError(f'{where}: {key} is {found!r}, which cannot be imported; known: '
                                f'{", ".join(map(repr, known))}')


def _data(values: Mapping[str, Any], where: Path) -> str:
    """Return the one type of all data sets, whose other settings change no meaning."""
    section = values.get('train_dataset')
    sections: list[Any] = section if isinstance(section, list) else [section]
    if not all(isinstance(item, dict) for item in sections) or not sections:
        raise RoboVLMsError(f"{where}: missing key 'train_dataset' with the 'type' of the data, "
                            f'found {section!r}; without it nobody knows what the actions mean')
    types = {str(item.get('type')) for item in sections}
    if len(types) > 1 or not types <= set(_HARMLESS):
        raise RoboVLMsError(f'{where}: train_dataset.type is {" and ".join(sorted(types))}, whose '
                            f'actions no import can follow; known: {", ".join(_HARMLESS)}')
    name, = types
    for item in sections:
        if unknown := sorted(set(item) - _HARMLESS[name]):
            raise RoboVLMsError(
                f'{where}: train_dataset.{unknown[0]} is {item[unknown[0]]!r:.80}, and may change '
                f'what the numbers of a {name} mean; known: {", ".join(sorted(_HARMLESS[name]))}')
        if item.get('organize_type', 'interleave') != 'interleave':
            raise RoboVLMsError(f'{where}: train_dataset.organize_type is '
                                f'{item["organize_type"]!r}, which no LSTM run can be; known: '
                                "'interleave'")
    return name


def _check_range(run: Run, known: Mapping[str, Any], where: Path) -> None:
    if missing := [key for key in ('norm_min', 'norm_max') if key not in known]:
        raise RoboVLMsError(f'{where}: missing key {missing[0]!r} (float), which norm_action '
                            'needs')
    if run.norm_min >= run.norm_max:
        raise RoboVLMsError(f'{where}: norm_min {run.norm_min:g} is not below norm_max '
                            f'{run.norm_max:g}')


def _check_open_x(run: Run, where: Path) -> None:
    """Refuse settings that this data set ignores in training, while the reference's robot acts."""
    if run.tcp_rel:
        raise RoboVLMsError(f'{where}: tcp_rel is true, but {OPEN_X} never turns its actions into '
                            'the tool frame; set it to false')
    if run.use_mu_law and run.mu_val != MU:
        raise RoboVLMsError(f'{where}: mu_val is {run.mu_val:g}, but {OPEN_X} bends its actions '
                            f'with {MU:g} whatever it says; set it to that')
