"""What the cameras give instead: noise, blur, JPEG, exposure, white balance, black, late."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np
from ros2_lstm_policy.sim.perturb.settings import PerturbConfig


class ChangedPictures:
    """
    The pictures of one episode.

    Those of training's augmentation, by the same module; noise is new in each frame.

    :param episode: its name.
    """

    def __init__(self, config: PerturbConfig, episode: str) -> None:
        """Draw what every camera does throughout the episode."""
        import torch
        self._config = config
        self._late: deque[Mapping[str, np.ndarray]] = deque(maxlen=config.delay + 1)
        self._effects, self._noise = {}, {}
        for camera in config.cameras:
            rng = config.rng(episode, f'pictures of {camera}')
            stops, warmth = rng.choice([-1.0, 1.0], 2) * [config.exposure, config.white_balance]
            self._effects[camera] = (config.blur, stops, config.noise, warmth, config.jpeg)
            self._noise[camera] = torch.Generator().manual_seed(int(rng.integers(2**31)))

    @property
    def notes(self) -> list[str]:
        """Return what was drawn, in words."""
        return [f'{camera}: {name} {value:+g}' for camera, of in self._effects.items()
                for name, value in (('exposure', of[1]), ('white balance', of[3])) if value]

    def see(self, images: Mapping[str, np.ndarray], step: int) -> Mapping[str, np.ndarray]:
        """Return what the robot gets of the cameras' pictures in a control period."""
        changed = {camera: self._changed(camera, image) for camera, image in images.items()}
        if step >= self._config.black_from:
            changed |= {camera: np.zeros_like(changed[camera])
                        for camera in self._config.black if camera in changed}
        self._late.append(changed)
        return self._late[0]

    def _changed(self, camera: str, image_HWC: np.ndarray) -> np.ndarray:
        import torch

        from ros2_lstm_policy import camera_effects
        strengths = [None if not strength else torch.tensor([float(strength)])
                     for strength in self._effects.get(camera, ())]
        if not any(strength is not None for strength in strengths):
            return image_HWC
        window = torch.from_numpy(np.ascontiguousarray(image_HWC))[None, None]
        return camera_effects.apply(window, camera_effects.CameraEffects(*strengths),
                                    self._noise[camera])[0, 0].numpy()
