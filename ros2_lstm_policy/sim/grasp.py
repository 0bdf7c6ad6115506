"""Where to grasp an object from above with two fingers: pure geometry on surface points."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

ANGLES = np.arange(0.0, np.pi, np.pi / 36)
WIDEST_M = 0.075
BELOW_TOP_M, ABOVE_SUPPORT_M = 0.03, 0.025
SLICE_M = 0.015
RIM_M, RIM_GRASP_M = 0.008, 0.02  # a bowl's: how far it goes down, how deep it is grasped
TURN_COST_M = 0.004  # a rad of turning weighs as much as this much of width
WIDE_COST_M, BLOCKED_COST_M = 0.05, 0.08
# the open Panda gripper seen from above, about the point between its finger tips
FINGERS_FROM_M, FINGERS_TO_M, FINGERS_ACROSS_M = 0.035, 0.065, 0.02
PALM_TO_M, PALM_ACROSS_M, PALM_ABOVE_M = 0.105, 0.04, 0.03
ASIDE_M = 0.015
NEAR_M = 0.3  # of an object's middle: farther points are out of the open gripper's reach


class Grasp(NamedTuple):
    """
    A grasp from above.

    :param position: (3,) m, where the point between the finger tips goes.
    :param yaw: rad in world axes, the line on which the fingers close.
    :param width: m between the object's sides on that line.
    :param aside: m on that line from the object's middle: one finger arrives first.
    """

    position: np.ndarray
    yaw: float
    width: float
    aside: float = 0.0


def plan_grasp(points: np.ndarray, yaw: float, others: np.ndarray) -> Grasp:
    """
    Choose the narrowest side that needs little turning and has room for the fingers.

    :param points: (n, 3) on the object's surface, m.
    :param yaw: the fingers' present line, rad.
    :param others: (m, 3) on the other objects' surfaces.
    """
    top, bottom = points[:, 2].max(), points[:, 2].min()
    height = min(max(top - BELOW_TOP_M, bottom + ABOVE_SUPPORT_M), top - 0.004)
    layer = points[np.abs(points[:, 2] - height) < SLICE_M][:, :2]
    if len(layer) < 20:
        layer = points[:, :2]
    grasps = [_grasp_along(layer, height, angle) for angle in ANGLES]
    if min(grasp.width for grasp in grasps) > WIDEST_M:
        grasps = _on_the_rim(points)
    grasps += [_beside(grasp, aside) for grasp in grasps for aside in (-ASIDE_M, ASIDE_M)
               if grasp.width / 2 + ASIDE_M < FINGERS_FROM_M]
    others = others[np.abs(others[:, :2] - layer.mean(0)).max(1) < NEAR_M]
    return min(grasps, key=lambda grasp: _cost(grasp, yaw, others))


def turn(yaw: float, to: float) -> float:
    """Return the shortest turn from one closing line to another; half a turn is the same line."""
    return float((to - yaw + np.pi / 2) % np.pi - np.pi / 2)


def _grasp_along(layer: np.ndarray, height: float, angle: float) -> Grasp:
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    low, high = np.percentile(layer @ along, (1, 99))
    centre = along * (low + high) / 2 + across * np.percentile(layer @ across, (5, 95)).mean()
    return Grasp(np.append(centre, height), float(angle), float(high - low))


def _on_the_rim(points: np.ndarray) -> list[Grasp]:
    """Return grasps of the wall of a bowl, one finger in it: for what is too wide as a whole."""
    top = points[:, 2].max()
    rim = points[points[:, 2] > top - RIM_M][:, :2]
    middle = (rim.max(0) + rim.min(0)) / 2
    radius = np.percentile(np.linalg.norm(rim - middle, axis=1), 90)
    return [Grasp(np.append(middle + radius * np.array([np.cos(angle), np.sin(angle)]),
                            top - RIM_GRASP_M), float(angle % np.pi), 0.0)
            for angle in np.concatenate([ANGLES, ANGLES + np.pi])]


def _beside(grasp: Grasp, aside: float) -> Grasp:
    along = np.array([np.cos(grasp.yaw), np.sin(grasp.yaw), 0.0])
    return grasp._replace(position=grasp.position + aside * along, aside=aside)


def _cost(grasp: Grasp, yaw: float, others: np.ndarray) -> float:
    cost = grasp.width + TURN_COST_M * abs(turn(yaw, grasp.yaw)) + abs(grasp.aside) / 3
    cost += WIDE_COST_M * (grasp.width > WIDEST_M)
    return cost + BLOCKED_COST_M * _blocked_share(grasp, others)


def _blocked_share(grasp: Grasp, others: np.ndarray) -> float:
    """Return how much of the open gripper's reach other objects block at the grasp, 0 to 1."""
    x, y = (others[:, :2] - grasp.position[:2]).T
    along = np.abs(x * np.cos(grasp.yaw) + y * np.sin(grasp.yaw))
    across = np.abs(y * np.cos(grasp.yaw) - x * np.sin(grasp.yaw))
    above = others[:, 2] - grasp.position[2]
    fingers = ((along > FINGERS_FROM_M) & (along < FINGERS_TO_M)
               & (across < FINGERS_ACROSS_M) & (above > -SLICE_M))
    palm = (along < PALM_TO_M) & (across < PALM_ACROSS_M) & (above > PALM_ABOVE_M)
    if fingers.any():
        return 1.0
    return float((PALM_TO_M - along[palm].min()) / PALM_TO_M) if palm.any() else 0.0
