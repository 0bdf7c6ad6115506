"""One way to any recording: a kind, a path, and how to read it."""

from __future__ import annotations

from dataclasses import dataclass, field
import os
from pathlib import Path
from typing import Literal

from ros2_lstm_policy.data.episodes import BrokenRecording, Recording, Wanted
from ros2_lstm_policy.data.folders import dangling
from ros2_lstm_policy.data.lerobot.layout import LeRobotLayout
from ros2_lstm_policy.data.libero_hdf5 import LiberoLayout, PATTERNS
from ros2_lstm_policy.data.problems import Problem, refuse
from ros2_lstm_policy.data.rosbag.format import BagLayout

Kind = Literal['bag', 'calvin', 'lerobot', 'libero']


@dataclass(frozen=True)
class SourceSpec:
    """
    One source of episodes.

    :param path: folder or file.
    :param kind: its format; None to tell it from the path.
    :param weight: how often its windows are drawn, relative to the other sources.
    :param bag: how to read it where it is rosbag2.
    :param lerobot: how to read it where it is a LeRobot dataset.
    :param libero: how to read it where it is HDF5 demonstrations.
    """

    path: Path
    kind: Kind | None = None
    weight: float = 1.0
    bag: BagLayout = field(default_factory=BagLayout)
    lerobot: LeRobotLayout = field(default_factory=LeRobotLayout)
    libero: LiberoLayout = field(default_factory=LiberoLayout)

    def __post_init__(self) -> None:
        """Refuse a weight that draws nothing."""
        if not self.weight > 0:
            raise ValueError(f'{self.path}: weight must be positive, found {self.weight}')


def open_source(spec: SourceSpec, wanted: Wanted = Wanted(),  # noqa: B008 (a frozen value)
                period_s: float | None = None) -> list[Recording]:
    """
    List the recordings of a source; none of them is read yet.

    A link whose target is not there is a broken one of them.

    :param wanted: the streams that its episodes must have.
    :param period_s: the control period; needed where bags hold velocities.
    :raises RecordingError: where the path is no dataset, or a damaged one.
    """
    found = _listed(spec, wanted, period_s)
    named = {recording.where for recording in found}
    return found + [BrokenRecording(path.name, Problem('dangling-link', path, '', _to(path)))
                    for path in dangling(Path(spec.path))
                    if not named & {path, *path.parents}]  # its own reader has looked at it


def _listed(spec: SourceSpec, wanted: Wanted, period_s: float | None) -> list[Recording]:
    kind = spec.kind or detect(spec.path)
    if kind == 'calvin':
        from ros2_lstm_policy.data.calvin import list_calvin
        return list_calvin(spec.path, wanted)
    if kind == 'lerobot':
        from ros2_lstm_policy.data.lerobot.reader import list_lerobot
        return list_lerobot(spec.path, spec.lerobot, wanted)
    if kind == 'libero':
        from ros2_lstm_policy.data.libero_hdf5 import list_libero
        return list_libero(spec.path, spec.libero, wanted)
    from ros2_lstm_policy.data.rosbag.reader import list_bags
    return list_bags(spec.path, spec.bag, wanted, period_s)


def describe(spec: SourceSpec) -> Wanted | None:
    """
    Return all that the recordings of a source say themselves that they hold.

    :return: None where they say nothing, as recordings of others do.
    :raises RecordingError: where the path is no dataset, or one whose tables are damaged.
    """
    kind = spec.kind or detect(spec.path)
    if kind == 'bag':
        from ros2_lstm_policy.data.rosbag.reader import describe_bags
        return describe_bags(spec.path, spec.bag)
    if kind == 'lerobot':
        from ros2_lstm_policy.data.lerobot.reader import describe_lerobot
        return describe_lerobot(spec.path)
    return None


def detect(path: Path) -> Kind:
    """Tell the format from what lies at a path; :raises RecordingError: where it is none."""
    path = Path(path)
    if (path / 'meta' / 'info.json').is_file():
        return 'lerobot'
    if (path / 'ep_start_end_ids.npy').is_file():
        return 'calvin'
    if path.suffix in ('.hdf5', '.h5') or any(
            any(path.glob(pattern)) for pattern in PATTERNS if path.is_dir()):
        return 'libero'
    from ros2_lstm_policy.data.rosbag.find import find_bags
    if path.exists() and find_bags(path):
        return 'bag'
    found = 'nothing is there' if not path.exists() else 'it is none of them'
    found += ''.join(f'; {link} {_to(link)}' for link in dangling(path)[:3])
    raise refuse('no-dataset', path, '', f'{found}; expected a rosbag2 bag or a folder of bags, '
                 'a LeRobot dataset (meta/info.json), a CALVIN folder (ep_start_end_ids.npy) or '
                 'LIBERO demonstrations (.hdf5)')


def _to(link: Path) -> str:
    """Say of a link where it leads."""
    return (f'is a link to {os.readlink(link)}, and nothing is there; mount the disk that it is '
            'on, or remove the link')
