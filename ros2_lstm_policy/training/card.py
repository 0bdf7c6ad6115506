"""The model card that travels with every checkpoint: data, training, and what is not known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ros2_lstm_policy import config

if TYPE_CHECKING:
    from ros2_lstm_policy.training.module import TrainingModule

_LISTED = 20

_CARD = """# Policy trained by behaviour cloning

**Measured success: unknown.** Nobody has evaluated this checkpoint on a robot or in simulation
yet; the losses below say how well it imitates, not whether it does the task.

## Data
{episodes} episodes, {steps} steps; {held_out} of the episodes were held out for validation.
Sources: {sources}

| instruction | episodes |
|---|---|
{instructions}

## Training
Step {step}, {elapsed_s:.0f} s, {windows} windows seen; {trained} of {parameters} parameters of the
policy were trained.

| on held-out episodes | value |
|---|---|
{validation}

(`swap_ratio`: arm loss under wrong instructions over the normal one; 1 would mean that it does not
listen.)

## Settings
```yaml
{settings}```
"""


def model_card(module: TrainingModule, step: int) -> str:
    """Return the README.md of a checkpoint made now."""
    data, policy = module.data, module.objective.policy
    episodes = data.episodes
    sources = [str(source.path) for source in module.config.data.sources]
    counts = Counter(episode.instruction for episode in episodes).most_common()
    batch = (module.config.data.loader.batch_size * module.config.optimiser.accumulate
             * module.trainer.world_size)
    return _CARD.format(
        episodes=len(episodes), steps=sum(episode.length for episode in episodes),
        held_out=data.split.held_out,
        sources=', '.join(sources) or f'frame store {module.config.data.store}',
        instructions=_rows(counts), step=step, elapsed_s=module.clock.elapsed_s,
        windows=step * batch,
        trained=sum(p.numel() for p in policy.parameters() if p.requires_grad),
        parameters=sum(p.numel() for p in policy.parameters()),
        validation=_rows([(name, f'{value:.5g}') for name, value in module.validation.items()]),
        settings=config.dump(module.config))


def _rows(pairs: Sequence[tuple[str, object]]) -> str:
    rows = [f'| {name} | {value} |' for name, value in pairs[:_LISTED]]
    if len(pairs) > _LISTED:
        rows.append(f'| and {len(pairs) - _LISTED} more | |')
    return '\n'.join(rows)
