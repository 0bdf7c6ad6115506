"""
Which image tokens tell the objects apart: a linear probe on frozen features.

Seven objects stand in seven permuted places (benchmark B). For each place, ridge regression on a
map of the static camera says which object stands there; it is fitted on permutations for
training and tested on held-out ones. Chance is 1 in 7.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.model.backbones.compact import efficientnet_lite
from ros2_lstm_policy.sim import benchmarks
from ros2_lstm_policy.sim.robot import SimRobot
from ros2_lstm_policy.sim.tasks import SimEpisode
from ros2_lstm_policy.transforms import normalise_images, resize
import torch

STRIDES, SIZES = (8, 16, 32), (128, 224)
RENDERED = 256  # pixels
RIDGE = 0.01


class Scenes(NamedTuple):
    """
    First images and what stands where.

    :param images: (N, 256, 256, 3) uint8 of the static camera.
    :param object_at: (N, 7), the object in each place.
    """

    images: np.ndarray
    object_at: np.ndarray


def render(robot: SimRobot, episodes: Sequence[SimEpisode]) -> Scenes:
    """Return the first image of each episode."""
    images, object_at = [], []
    for episode in episodes:
        images.append(robot.reset(episode).observation.images['static'])
        object_at.append(np.argsort(episode.slots or ()))
    return Scenes(np.stack(images), np.stack(object_at))


@torch.inference_mode()
def maps(network: efficientnet_lite.EfficientNetLite0, images: np.ndarray,
         size: int) -> list[np.ndarray]:
    """Return the maps of each stride, (N, C, H, W)."""
    camera = CameraSpec('static', size, size, 'area', (127 / 255,) * 3, (128 / 255,) * 3)
    found = [network(normalise_images(torch.from_numpy(resize(image, camera))[None], camera), {})
             for image in images]
    return [torch.cat(level).numpy() for level in zip(*found)]


def accuracy(fit: np.ndarray, fit_labels: np.ndarray, test: np.ndarray,
             test_labels: np.ndarray) -> float:
    """Return the share of places whose object a ridge regression on the map gets right."""
    mean, scale = fit.mean(0), fit.std((0, 2, 3), keepdims=True)[0] + 1e-3
    fit, test = (((m - mean) / scale).reshape(len(m), -1) / fit[0].size ** 0.5
                 for m in (fit, test))
    classes = fit_labels.shape[1]
    targets = np.eye(classes)[fit_labels].reshape(len(fit), -1) - 1 / classes
    weights = np.linalg.solve(fit @ fit.T + RIDGE * np.eye(len(fit)), targets)
    said = (test @ fit.T @ weights).reshape(len(test), classes, classes).argmax(-1)
    return float((said == test_labels).mean())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--scenes', type=int, default=280, help='to fit on; 50 more to test')
    options = parser.parse_args()
    torch.set_num_threads(1)
    robot = SimRobot(benchmarks.SCENE, (RENDERED, RENDERED))
    fit = render(robot, [benchmarks.training_b(i) for i in range(options.scenes)])
    test = render(robot, benchmarks.b()[:50])
    robot.close()
    network = efficientnet_lite.EfficientNetLite0(STRIDES)
    efficientnet_lite.load_pretrained(network, efficientnet_lite.PRETRAINED)
    print(f'{len(fit.images)} scenes to fit, {len(test.images)} to test\n'
          '| image | stride | tokens | objects told apart |\n|---|---|---|---|')
    for size in SIZES:
        levels = zip(STRIDES, maps(network, fit.images, size), maps(network, test.images, size))
        for stride, of_fit, of_test in levels:
            share = accuracy(of_fit, fit.object_at, of_test, test.object_at)
            print(f'| {size} | {stride} | {of_fit[0, 0].size} | {100 * share:.0f} % |')


if __name__ == '__main__':
    main()
