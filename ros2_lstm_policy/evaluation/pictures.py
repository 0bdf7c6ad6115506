"""
What the cameras saw and what was commanded, as one picture: drawn shots and contact sheets.

A shot is drawn with its cameras side by side and, below them, the commanded displacement: an
arrow for x and y as a static camera that faces the robot sees them (x, away from the base, is
down; y is right), a bar for z, an arc for the turn about z, and the gripper's fingers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from ros2_lstm_policy.types import Action

CAMERA_PX, PANEL_PX, TITLE_PX, GAP_PX = 192, 64, 30, 4
PANEL_CAMERAS = 2  # the panel is as wide as so many cameras
FULL_MOVE_M, FULL_TURN_RAD = 0.05, 0.5  # drawn at full length
PAPER, INK, FAINT = (250, 250, 250), (40, 40, 40), (190, 190, 190)
MOVE, TURN, OPEN, CLOSED = (31, 119, 180), (148, 103, 189), (44, 160, 44), (214, 39, 40)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class Shot:
    """
    One step of an episode.

    :param images: camera name to (H, W, 3) uint8 RGB.
    :param action: what was commanded for it; None where nothing was.
    :param step: its number in the episode.
    """

    images: Mapping[str, np.ndarray]
    action: Action | None
    step: int


def draw(shot: Shot, cameras: Sequence[str] | None = None) -> np.ndarray:
    """
    Return a shot's picture, (H, W, 3) uint8 RGB, whose sides are even as videos want them.

    :param cameras: those to draw, from left to right; None for those of the shot. Shots that are
        drawn with as many have one size.
    """
    names = tuple(shot.images) if cameras is None else tuple(cameras)
    views = [_view(shot.images.get(camera), camera) for camera in names]
    width = CAMERA_PX * max(len(views), PANEL_CAMERAS)
    views.append(_paper(CAMERA_PX, width - CAMERA_PX * len(views)))
    panel = _panel(shot)
    panel = np.concatenate([panel, _paper(PANEL_PX, width - panel.shape[1])], axis=1)
    return np.concatenate([np.concatenate(views, axis=1), panel], axis=0)


def contact_sheet(shots: Sequence[Shot], title: str, count: int = 12,
                  columns: int = 4) -> np.ndarray:
    """
    Return a picture of an episode: moments from its beginning to its end, row by row.

    :param count: the most moments to show; those where the gripper turned are among them.
    :raises ValueError: without a shot.
    """
    if not shots:
        raise ValueError('a contact sheet needs at least one shot, found none')
    cameras = dict.fromkeys(name for shot in shots for name in shot.images)
    cells = [draw(shots[i], tuple(cameras)) for i in _moments(shots, count)]
    columns = min(columns, len(cells))
    cells += [np.full_like(cells[0], PAPER)] * (-len(cells) % columns)
    gap = ((0, GAP_PX), (0, GAP_PX), (0, 0))
    cells = [np.pad(cell, gap, constant_values=PAPER[0]) for cell in cells]
    rows = [np.concatenate(cells[i:i + columns], axis=1) for i in range(0, len(cells), columns)]
    sheet = np.concatenate(rows, axis=0)
    return np.concatenate([title_bar(title, sheet.shape[1]), sheet], axis=0)


def title_bar(text: str, width: int) -> np.ndarray:
    """Return a line of text on paper, (TITLE_PX, width, 3); cut where it is too long."""
    bar = _paper(TITLE_PX, width)
    printable = text.encode('ascii', 'replace').decode()
    while printable and cv2.getTextSize(printable, _FONT, 0.5, 1)[0][0] > width - 12:
        printable = printable[:-1]
    cv2.putText(bar, printable, (6, 20), _FONT, 0.5, INK, 1, cv2.LINE_AA)
    return bar


def save(path: Path, image: np.ndarray) -> None:
    """Write an RGB image as PNG or JPEG, by the file's name. :raises OSError: if it cannot be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
        raise OSError(f'{path}: the picture could not be written')


def _moments(shots: Sequence[Shot], count: int) -> list[int]:
    """Return shot indices: both ends, then each turn of the gripper, then evenly spread ones."""
    last = len(shots) - 1
    chosen = dict.fromkeys((0, last))
    grips = [shot.action is not None and shot.action.gripper_open >= 0.5 for shot in shots]
    turns = [i for i in range(1, len(shots)) if grips[i] != grips[i - 1]]
    spread = np.linspace(0, last, count).round().astype(int).tolist()
    for index in (*turns[:count // 2], *spread):
        if len(chosen) < count and all(abs(index - other) > 1 for other in chosen):
            chosen[index] = None
    return sorted(chosen)


def _view(image: np.ndarray | None, camera: str) -> np.ndarray:
    view = _paper(CAMERA_PX, CAMERA_PX)
    if image is None:
        cv2.putText(view, f'no {camera} camera', (20, 96), _FONT, 0.45, FAINT, 1, cv2.LINE_AA)
        return view
    scale = CAMERA_PX / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    top, left = (CAMERA_PX - height) // 2, (CAMERA_PX - width) // 2
    view[top:top + height, left:left + width] = cv2.resize(image, (width, height),
                                                           interpolation=method)
    return view


def _panel(shot: Shot) -> np.ndarray:
    panel = _paper(PANEL_PX, PANEL_CAMERAS * CAMERA_PX)
    cv2.putText(panel, f'step {shot.step}', (6, 16), _FONT, 0.42, INK, 1, cv2.LINE_AA)
    if shot.action is None:
        cv2.putText(panel, 'no command', (6, 36), _FONT, 0.42, FAINT, 1, cv2.LINE_AA)
        return panel
    move, turn = shot.action.arm[:3] / FULL_MOVE_M, float(shot.action.arm[5]) / FULL_TURN_RAD
    move_cm = ' '.join(f'{100 * value:+.1f}' for value in shot.action.arm[:3])
    cv2.putText(panel, f'{move_cm} cm', (6, 36), _FONT, 0.38, INK, 1, cv2.LINE_AA)
    _draw_arrow(panel, (190, 32), move[:2])
    _draw_bar(panel, (240, 32), float(move[2]))
    _draw_arc(panel, (285, 32), turn)
    _draw_gripper(panel, (345, 32), shot.action.gripper_open >= 0.5)
    return panel


def _draw_arrow(panel: np.ndarray, at: tuple[int, int], move_xy: np.ndarray) -> None:
    cv2.circle(panel, at, 26, FAINT, 1, cv2.LINE_AA)
    x, y = np.clip(move_xy, -1.5, 1.5)
    tip = round(at[0] + 26 * float(y)), round(at[1] + 26 * float(x))
    cv2.arrowedLine(panel, at, tip, MOVE, 2, cv2.LINE_AA, tipLength=0.3)


def _draw_bar(panel: np.ndarray, at: tuple[int, int], move_z: float) -> None:
    cv2.line(panel, (at[0] - 8, at[1]), (at[0] + 8, at[1]), FAINT, 1)
    end = round(at[1] - 26 * float(np.clip(move_z, -1.1, 1.1)))
    cv2.rectangle(panel, (at[0] - 5, at[1]), (at[0] + 5, end), MOVE, -1)
    cv2.putText(panel, 'z', (at[0] + 9, at[1] - 18), _FONT, 0.36, FAINT, 1, cv2.LINE_AA)


def _draw_arc(panel: np.ndarray, at: tuple[int, int], turn: float) -> None:
    cv2.circle(panel, at, 18, FAINT, 1, cv2.LINE_AA)
    degrees = 90 * float(np.clip(turn, -1.0, 1.0))
    cv2.ellipse(panel, at, (18, 18), -90, 0, -degrees, TURN, 3, cv2.LINE_AA)


def _draw_gripper(panel: np.ndarray, at: tuple[int, int], is_open: bool) -> None:
    colour, half = (OPEN, 14) if is_open else (CLOSED, 4)
    cv2.rectangle(panel, (at[0] - 16, at[1] - 22), (at[0] + 16, at[1] - 14), colour, -1)
    for x in (at[0] - half, at[0] + half):
        cv2.line(panel, (x, at[1] - 14), (x, at[1] + 6), colour, 4)
    text = 'open' if is_open else 'closed'
    cv2.putText(panel, text, (at[0] - 20, at[1] + 24), _FONT, 0.4, colour, 1, cv2.LINE_AA)


def _paper(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), PAPER, np.uint8)
