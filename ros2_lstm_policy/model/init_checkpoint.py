"""Command `init_checkpoint`: make an untrained checkpoint from a policy configuration."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
import sys

from ros2_lstm_policy import config
from ros2_lstm_policy.manifest import ActionManifest
from ros2_lstm_policy.model.policy import Policy, PolicyConfig


@dataclass(frozen=True)
class InitConfig:
    """What a new policy is: its network and what its numbers mean."""

    policy: PolicyConfig
    manifest: ActionManifest


CARD = """# UNTRAINED policy: it moves at random

Made by `init_checkpoint` from `{source}` with seed {seed}. The {family} backbone starts from its
published weights; everything else is random. It shows that the way from camera to command works,
and nothing more.

- parameters: {parameters:,}
- cameras: {cameras}
- measured success: none
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--config', type=Path, required=True, help='YAML with policy and manifest')
    parser.add_argument('--out', type=Path, required=True, help='checkpoint directory to make')
    parser.add_argument('--seed', type=int, default=0, help='of the random weights')
    parser.add_argument('overrides', nargs='*', help='key.subkey=value')
    options = parser.parse_args(arguments)
    try:
        chosen = config.load(InitConfig, options.config, options.overrides)
        policy = untrained(chosen, options.seed)
    except (config.ConfigError, RuntimeError) as error:
        print(f'init_checkpoint: {error}', file=sys.stderr)
        return 2
    card = CARD.format(source=options.config.name, seed=options.seed,
                       family=chosen.policy.backbone.family,
                       parameters=sum(p.numel() for p in policy.parameters()),
                       cameras=', '.join(camera.name for camera in chosen.manifest.cameras))
    from ros2_lstm_policy.model import checkpoint
    checkpoint.save(options.out, policy, card)
    print(f'{options.out}: untrained policy, {checkpoint.fingerprint(options.out)[:12]}')
    return 0


def untrained(chosen: InitConfig, seed: int) -> Policy:
    """Make the policy with random weights of that seed."""
    import torch
    torch.manual_seed(seed)
    return Policy(chosen.policy, chosen.manifest).eval()


if __name__ == '__main__':
    sys.exit(main())
