"""Which parameters are trained: freezing, the last layers only, LoRA."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from ros2_lstm_policy.model.policy import Policy


@dataclass(frozen=True)
class TuneConfig:
    """
    What of the policy stays as it is.

    :param freeze: patterns of parameter names of the policy, as `backbone.vision*`.
    """

    freeze: tuple[str, ...] = ()


def apply(policy: Policy, config: TuneConfig) -> None:
    """
    Freeze what the configuration says.

    :raises ValueError: for a pattern that matches nothing.
    """
    for pattern in config.freeze:
        matched = [p for name, p in policy.named_parameters() if fnmatchcase(name, pattern)]
        if not matched:
            raise ValueError(f'tune.freeze: {pattern!r} matches no parameter of the policy')
        for parameter in matched:
            parameter.requires_grad_(False)
