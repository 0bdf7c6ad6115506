"""The simulated robot's cameras: upright RGB images, rendered off screen by MuJoCo itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

MODEL_CAMERAS = {'static': 'agentview', 'hand': 'robot0_eye_in_hand'}
SIDE = 'side'  # looks across the place in front of the arm, whatever the scene
SIDE_AHEAD_M, SIDE_DISTANCE_M, SIDE_AZIMUTH_DEG, SIDE_ELEVATION_DEG = 0.5, 0.9, 90, -35
COLLISION_GROUP = 0


class Shape(NamedTuple):
    """
    Something that is drawn and is not there.

    :param kind: 'box', 'sphere' or 'cylinder'.
    :param size: half its width, m.
    :param position: m, in world axes.
    :param colour: red, green, blue, 0 to 1.
    """

    kind: str
    size: float
    position: tuple[float, float, float]
    colour: tuple[float, float, float]


class SimCameras:
    """
    Renders one scene.

    :param model: `mujoco.MjModel`, thinned already: a mesh is uploaded once, here.
    :param image_size: (height, width) in pixels.
    :param cameras: by the name that each has here, a camera of the model, or one of its own.
    """

    def __init__(self, model: Any, image_size: tuple[int, int],
                 cameras: Mapping[str, Any]) -> None:
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
        self._cameras = cameras
        self.shapes: tuple[Shape, ...] = ()

    def render(self, data: Any) -> Mapping[str, np.ndarray]:
        """Return camera name to (H, W, 3) uint8 RGB of the simulator's present state."""
        images = {}
        for name, camera in self._cameras.items():
            self._renderer.update_scene(data, camera, self._options)
            for shape in self.shapes:
                self._draw(shape)
            images[name] = self._renderer.render()
        return images

    def _draw(self, shape: Shape) -> None:
        import mujoco
        scene = self._renderer.scene
        kinds = {'box': mujoco.mjtGeom.mjGEOM_BOX, 'sphere': mujoco.mjtGeom.mjGEOM_SPHERE,
                 'cylinder': mujoco.mjtGeom.mjGEOM_CYLINDER}
        mujoco.mjv_initGeom(
            scene.geoms[scene.ngeom], kinds[shape.kind], np.full(3, shape.size),
            np.array(shape.position), np.eye(3).ravel(), np.array([*shape.colour, 1.0], 'f'))
        scene.ngeom += 1

    def close(self) -> None:
        """Free the context; renders after it fail."""
        self._renderer.close()


def side_camera(base_m: np.ndarray) -> Any:
    """
    Return a `mujoco.MjvCamera` that looks from the arm's left across what it reaches.

    :param base_m: (3,) the arm's base.
    """
    import mujoco
    camera = mujoco.MjvCamera()
    camera.lookat[:] = base_m + np.array([SIDE_AHEAD_M, 0.0, 0.0])
    camera.distance, camera.azimuth = SIDE_DISTANCE_M, SIDE_AZIMUTH_DEG
    camera.elevation = SIDE_ELEVATION_DEG
    return camera
