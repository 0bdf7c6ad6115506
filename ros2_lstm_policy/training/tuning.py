"""Which parameters are trained: freezing, the last layers only, LoRA; and with how much memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import cast

from ros2_lstm_policy.model.backbones.base import Parts
from ros2_lstm_policy.model.policy import Policy
import torch
from torch import nn

_PIECE = 1_000_000  # parameters of a layer that is worth a gathering of its own


@dataclass(frozen=True)
class LoraConfig:
    """
    Low-rank adapters on every linear layer of the language model (Hu et al. 2021, 2106.09685).

    Defaults are the reference's. Checkpoints hold the merged weights.

    :param rank: of the two factors.
    :param alpha: their product is scaled by alpha / rank.
    :param dropout: on the adapters' input.
    """

    rank: int = 64
    alpha: int = 16
    dropout: float = 0.05

    def __post_init__(self) -> None:
        """Refuse an adapter of nothing."""
        if self.rank < 1 or self.alpha < 1 or not 0 <= self.dropout < 1:
            raise ValueError('rank and alpha must be at least 1, dropout in [0, 1)')


@dataclass(frozen=True)
class TuneConfig:
    """
    What of the policy stays as it is.

    :param freeze_vision: the image network, with its projector into the language model.
    :param freeze_language: the language model; its word embeddings have their own switch.
    :param freeze_embeddings: the word embeddings.
    :param last_n_layers: train only so many last layers of the language model (of the compact
        backbone: of its fusion transformer); None for all.
    :param freeze: patterns of the policy's parameter names that stay too, as `decoder.rnn*`.
    :param lora: adapters instead of the language model's own weights; None for none.
    """

    freeze_vision: bool = False
    freeze_language: bool = False
    freeze_embeddings: bool = False
    last_n_layers: int | None = None
    freeze: tuple[str, ...] = ()
    lora: LoraConfig | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.last_n_layers is not None and self.last_n_layers < 1:
            raise ValueError('last_n_layers must be at least 1; freeze_language freezes all')
        if self.freeze_language and (self.last_n_layers or self.lora):
            raise ValueError('freeze_language leaves nothing for last_n_layers or lora to train')


def apply(policy: Policy, config: TuneConfig) -> None:
    """
    Freeze what the configuration says, and put adapters in.

    :raises ValueError: for a part that this policy does not have.
    """
    parts = policy.backbone.parts()
    if config.lora is not None:
        _inject(policy, parts, config.lora)
    if config.freeze_vision:
        _freeze(_some(parts.vision, 'freeze_vision', policy))
    if config.freeze_language:
        _freeze(_some(parts.language, 'freeze_language', policy))
    if config.freeze_embeddings:
        _freeze(_some(parts.embeddings, 'freeze_embeddings', policy))
    if config.last_n_layers is not None:
        if config.last_n_layers > len(parts.layers):
            raise ValueError(f'tune.last_n_layers: there are {len(parts.layers)} layers, '
                             f'{config.last_n_layers} were asked for')
        kept = {id(p) for p in _parameters(parts.layers[-config.last_n_layers:])}
        _freeze([p for p in [*parts.language, *parts.embeddings, *_parameters(parts.layers)]
                 if id(p) not in kept])
    for pattern in config.freeze:
        _freeze(_some([p for name, p in policy.named_parameters() if fnmatchcase(name, pattern)],
                      f'freeze {pattern!r}', policy))


def checkpoint_gradients(policy: Policy) -> None:
    """
    Recompute the backbone's layers in the backward pass instead of keeping what they gave.

    :raises ValueError: for a backbone that cannot.
    """
    recompute = policy.backbone.parts().recompute
    if recompute is None:
        raise ValueError('engine.gradient_checkpointing: the backbone '
                         f'{policy.config.backbone.family!r} has no layers that can be '
                         'recomputed; set it to false')
    recompute()


def compile_layers(policy: Policy, graphs: bool = False) -> None:
    """
    Compile the backbone: a large model layer by layer, one compilation for all of them.

    :param graphs: replay a small backbone's kernels as CUDA graphs, since issuing them one by one
        takes longer than they do. A step's gradients then live in memory that the next forward
        pass takes, so every backward pass must be followed by a step.
    """
    # Under DDP Dynamo cuts what it compiles at the edges of gradient buckets: more and smaller
    # kernels' graphs, for an overlap that the layers of a large model have without it.
    torch._dynamo.config.optimize_ddp = False
    blocks = policy.backbone.parts().compiled
    for block in blocks:
        block.compile()
    if not blocks:
        cast(nn.Module, policy.backbone).compile(mode='reduce-overhead' if graphs else None)


class Pieces:
    """
    Which modules FSDP gathers by themselves: the large layers.

    Only what is called as a whole may be a piece; everything else is gathered for a whole step.
    """

    def __init__(self) -> None:
        """Begin without any."""
        self._layers: set[nn.Module] = set()

    def find(self, policy: Policy) -> None:
        """Find the layers of a policy."""
        self._layers = {layer for layers in policy.modules() if isinstance(layers, nn.ModuleList)
                        for layer in layers
                        if sum(p.numel() for p in layer.parameters()) >= _PIECE}

    def __call__(self, module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
        """Answer FSDP: look into every module, and shard the layers on their own."""
        return recurse or module in self._layers


def _parameters(modules: Sequence[nn.Module]) -> list[nn.Parameter]:
    return [p for module in modules for p in module.parameters()]


def _freeze(parameters: Sequence[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.requires_grad_(False)


def _some(parameters: Sequence[nn.Parameter], what: str,
          policy: Policy) -> Sequence[nn.Parameter]:
    if not parameters:
        raise ValueError(f'tune: {what} matches nothing in the backbone '
                         f'{policy.config.backbone.family!r}')
    return parameters


def _inject(policy: Policy, parts: Parts, config: LoraConfig) -> None:
    if not parts.adaptable:
        raise ValueError('tune.lora needs a language model; the backbone '
                         f'{policy.config.backbone.family!r} has none')
    import peft
    backbone, wanted = cast(nn.Module, policy.backbone), {id(layer) for layer in parts.adaptable}
    names = [name for name, module in backbone.named_modules() if id(module) in wanted]
    peft.inject_adapter_in_model(
        peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout,
                        target_modules=names), backbone)


@contextmanager
def merged(policy: Policy) -> Iterator[Policy]:
    """Give the policy with its adapters merged into plain layers, and undo that exactly."""
    layers = [(name, module) for name, module in policy.named_modules()
              if hasattr(module, 'get_delta_weight')]
    kept = {name: module.get_base_layer().weight.detach().clone() for name, module in layers}
    try:
        for name, module in layers:
            plain = module.get_base_layer()
            with torch.no_grad():
                plain.weight += module.get_delta_weight('default')
            _replace(policy, name, plain)
        yield policy
    finally:
        for name, module in layers:
            with torch.no_grad():
                module.get_base_layer().weight.copy_(kept[name])
            _replace(policy, name, module)


def _replace(policy: Policy, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition('.')
    setattr(policy.get_submodule(parent), child, module)
