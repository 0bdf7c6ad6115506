"""Vision-language backbones, one module a family behind one face (`base.Backbone`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any, TYPE_CHECKING

from ros2_lstm_policy import config
from ros2_lstm_policy.manifest import CameraSpec

if TYPE_CHECKING:
    from ros2_lstm_policy.model.backbones.base import Backbone

# A family's module, relative to this package or absolute. It has `create(options, cameras,
# checkpoint)` and a frozen dataclass `Options`, whose class constant `TRAINS_EVERY_PARAMETER` says
# whether every step of training gives every parameter a gradient.
FAMILIES = {
    'compact': '.compact.backbone',
    'florence2': '.hugging_face.florence2',
    'kosmos2': '.hugging_face.kosmos2',
    'llava': '.hugging_face.llava',
    'paligemma': '.hugging_face.paligemma',
    'qwen_vl': '.hugging_face.qwen_vl',
    'smolvlm': '.hugging_face.smolvlm',
}


def create(family: str, options: Mapping[str, Any], cameras: Sequence[CameraSpec],
           checkpoint: Path | None = None) -> Backbone:
    """
    Build a backbone.

    :param family: a key of FAMILIES.
    :param options: the family's options, read strictly.
    :param cameras: the cameras that it gets, in the order of its tokens.
    :param checkpoint: a directory of ours whose weights will be loaded into it, and which has what
        `save_assets` wrote; None to start from the published weights.
    :raises ConfigError: for an unknown family or option.
    """
    module = _module(family)
    return module.create(config.parse(module.Options, options, _where(family)), cameras,
                         checkpoint)


def complete_options(family: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of the family as plain values, defaults written out."""
    return config.plain(config.parse(_module(family).Options, options, _where(family)))


def trains_every_parameter(family: str) -> bool:
    """Return whether each training step uses all of the family's parameters, as DDP wants it."""
    return _module(family).Options.TRAINS_EVERY_PARAMETER


def _module(family: str) -> ModuleType:
    if family not in FAMILIES:
        raise config.ConfigError(f'backbone: unknown family {family!r}; known: '
                                 f'{", ".join(FAMILIES)}')
    return importlib.import_module(FAMILIES[family], __name__)


def _where(family: str) -> str:
    return f'backbone options of {family}'
