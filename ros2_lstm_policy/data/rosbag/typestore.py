"""The message types of ROS 2 Jazzy, parsed once a process."""

from __future__ import annotations

from functools import cache

from rosbags.typesys import get_typestore, Stores
from rosbags.typesys.store import Typestore


@cache
def typestore() -> Typestore:
    """Return the message types of ROS 2 Jazzy."""
    return get_typestore(Stores.ROS2_JAZZY)
