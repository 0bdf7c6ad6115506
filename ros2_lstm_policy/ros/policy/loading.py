"""
Whose policy the node acts with: that of a checkpoint in this process, or that of a server.

The heavy imports are made where they are used, so that --help needs none of them, and a node that
acts with a server neither loads nor needs the model.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import NamedTuple, TYPE_CHECKING

from ros2_lstm_policy.manifest import Manifest
from ros2_lstm_policy.ros.declared import ParameterError
from ros2_lstm_policy.ros.policy.parameters import Settings

if TYPE_CHECKING:
    from ros2_lstm_policy.runtime.actor import PolicyActor
    from ros2_lstm_policy.serving.link import Link
    from ros2_lstm_policy.serving.remote import RemoteActor

OF_THE_SERVER = ('device', 'threads', 'precision', 'engine', 'execute')


class Loaded(NamedTuple):
    """
    A policy to act with.

    :param fingerprint: of its checkpoint.
    :param link: to the machine that it runs on; None: this one.
    """

    actor: PolicyActor | RemoteActor
    manifest: Manifest
    fingerprint: str
    link: Link | None = None


def load(settings: Settings) -> Loaded:
    """
    Load the policy, or connect to it.

    :raises ValueError: where the parameters name none that can be acted with.
    """
    if settings.server:
        return _connected(settings)
    if not settings.checkpoint:
        raise ParameterError('the parameter checkpoint is empty; set it to the directory of a '
                             'checkpoint, or server to the address of a policy that is served')
    from ros2_lstm_policy.model import checkpoint
    from ros2_lstm_policy.runtime.actor import PolicyActor
    import torch
    try:
        torch.zeros(1, device=settings.device)
    except (RuntimeError, AssertionError) as error:
        raise ParameterError(f'device {settings.device!r} cannot be used: {error}') from error
    directory = Path(settings.checkpoint)
    policy = checkpoint.load(directory, settings.device)
    actor = PolicyActor(policy, settings.execute, precision=settings.precision,  # type: ignore
                        cuda_graph=settings.engine != 'eager', threads=settings.threads,
                        compiled=settings.engine == 'compiled')
    return Loaded(actor, policy.manifest, checkpoint.fingerprint(directory))


def unused(settings: Settings) -> list[str]:
    """Return a line where parameters are set that a served policy does not take."""
    given = [row.name for row in fields(Settings) if row.name in OF_THE_SERVER
             and getattr(settings, row.name) != row.default]
    if not settings.server or not given:
        return []
    return [f'{", ".join(given)}: how a served policy runs is said where it is served (serve '
            '--help); these parameters change nothing']


def _connected(settings: Settings) -> Loaded:
    from ros2_lstm_policy.serving.link import Link
    from ros2_lstm_policy.serving.remote import RemoteActor
    link = Link(settings.server)
    try:
        if settings.checkpoint:
            _require_same(Path(settings.checkpoint), settings.server, link.greeting.fingerprint)
    except BaseException:
        link.close()
        raise
    return Loaded(RemoteActor(link), link.greeting.manifest, link.greeting.fingerprint, link)


def _require_same(directory: Path, server: str, served: str) -> None:
    """Refuse a server of another checkpoint. :raises ParameterError: which names both."""
    from ros2_lstm_policy.model import checkpoint
    own = checkpoint.fingerprint(directory)
    if own != served:
        raise ParameterError(f'the server {server} has the checkpoint {served[:12]}, and '
                             f'{directory} is {own[:12]}: serve that one, or leave the parameter '
                             'checkpoint empty to act with whatever is served')
