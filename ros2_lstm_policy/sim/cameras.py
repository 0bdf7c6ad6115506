"""The simulated robot's two cameras: upright RGB images, rendered off screen by MuJoCo itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

MODEL_CAMERAS = {'static': 'agentview', 'hand': 'robot0_eye_in_hand'}
COLLISION_GROUP = 0


class SimCameras:
    """
    Renders one scene.

    :param model: `mujoco.MjModel`, thinned already: a mesh is uploaded once, here.
    :param image_size: (height, width) in pixels.
    """

    def __init__(self, model: Any, image_size: tuple[int, int]) -> None:
        """Create the off-screen context and upload the scene."""
        import mujoco
        height, width = image_size
        model.vis.global_.offheight = max(height, model.vis.global_.offheight)
        model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
        # policies look at images made smaller: smoothing edges first takes as long as all the rest
        model.vis.quality.offsamples = 0
        self._renderer = mujoco.Renderer(model, height, width)
        # a mirror image of the table doubles the cost and is hardly seen
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._options = mujoco.MjvOption()
        self._options.geomgroup[COLLISION_GROUP] = 0

    def render(self, data: Any) -> Mapping[str, np.ndarray]:
        """Return camera name to (H, W, 3) uint8 RGB of the simulator's present state."""
        images = {}
        for name, camera in MODEL_CAMERAS.items():
            self._renderer.update_scene(data, camera, self._options)
            images[name] = self._renderer.render()
        return images

    def close(self) -> None:
        """Free the context; renders after it fail."""
        self._renderer.close()
