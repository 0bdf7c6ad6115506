"""
A training step of ours against the reference's way, in one run, from the same weights.

The reference's way (RoboVLMs): eager; fp32 weights under bf16 autocast; attention by explicit
additive masks; the vocabulary projection and all hidden states computed at every step; each camera
encoded by itself; every frame's text encoded again; PyTorch's own convolutions; AdamW as PyTorch
has it by default. Ours: the command's own objective and optimiser. Both see the same uint8 batches
on the device; a step is forward, backward, clipping and the update. Windows of 8 steps, chunks of
10, two cameras.

    PYTHONPATH=. python benchmarks/train_step.py                # about a minute on one H200
    PYTHONPATH=. python benchmarks/train_step.py --smoke        # tiny networks on the CPU
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
import copy
import functools
import gc
import importlib
from pathlib import Path
import sys
import tempfile
import time
from typing import Any, NamedTuple

from einops import rearrange
from ros2_lstm_policy.manifest import CameraSpec, Manifest, Normalisation, one_arm
from ros2_lstm_policy.model.backbones.base import EncodedText
from ros2_lstm_policy.model.backbones.compact import depthwise, minilm
from ros2_lstm_policy.model.backbones.hugging_face.backbone import ASSETS
from ros2_lstm_policy.model.losses import action_loss
from ros2_lstm_policy.model.policy import BackboneConfig, DecoderConfig, Policy, PolicyConfig
from ros2_lstm_policy.training import optimizer, tuning
from ros2_lstm_policy.training.objective import LossConfig, Objective, total
from ros2_lstm_policy.training.texts import Texts
from ros2_lstm_policy.transforms import normalise_images
from ros2_lstm_policy.types import ActionChunk, Batch
import torch
from torch import nn, Tensor
from transformers import BertConfig, BertModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'test'))
sys.path.insert(0, str(Path(__file__).resolve().parent))
random_vlms = importlib.import_module('random_vlms')

WINDOW, CHUNK = 8, 10
WORDS = ('pick up the red block and put it into the bowl, then close the upper drawer',
         'open the drawer', 'pick up the soup and put it in the basket',
         'slide the blue block to the left of the table')
GRIPPER_RATIO, LEARNING_RATE, CLIP = 0.01, 2e-5, 1.0


class Run(NamedTuple):
    """What one way of training gave: windows a second, peak GB, the loss of each step."""

    windows_per_s: float
    peak_gb: float
    losses: list[float]


def kosmos_policy(sizes: Mapping[str, Any], side: int, attention: str, head: DecoderConfig,
                  device: str) -> Policy:
    """Build Kosmos-2 of a size with fp32 weights, random by a seed, on the device."""
    with tempfile.TemporaryDirectory() as directory:
        assets = Path(directory) / ASSETS
        words = random_vlms.tokenizer('kosmos2')
        random_vlms.config('kosmos2', words, sizes).save_pretrained(assets)
        words.save_pretrained(assets)
        cameras = tuple(CameraSpec(name, side, side, 'bicubic', (0.5,) * 3, (0.5,) * 3)
                        for name in ('hand', 'static'))
        options = {'directory': str(assets), 'dtype': 'float32', 'attention': attention}
        policy = Policy(PolicyConfig(BackboneConfig('kosmos2', options), head),
                        _manifest(cameras), Path(directory)).to(device)
    _seeded(policy)
    return policy


class RandomWords:
    """A word encoder of MiniLM's size with random weights, so that no package is needed."""

    def __init__(self) -> None:
        """Make it; the seed is fixed."""
        torch.manual_seed(2)
        self.tokenizer = random_vlms.tokenizer('kosmos2')
        self.model = BertModel(BertConfig(
            vocab_size=30522, hidden_size=minilm.STATE_DIM, num_hidden_layers=6,
            num_attention_heads=12, intermediate_size=1536), add_pooling_layer=False).eval()
        self.padded = functools.lru_cache(self._padded)

    def token_ids(self, instruction: str) -> tuple[int, ...]:
        """Return the ids; byte pairs of an untrained vocabulary, cut to a usual length."""
        return tuple(self.tokenizer(instruction)['input_ids'][:20])

    def embeddings(self) -> Tensor:
        """Return V word embeddings of width 384."""
        return self.model.embeddings.word_embeddings.weight.detach()

    @torch.no_grad()
    def _padded(self, rows: tuple[tuple[int, ...], ...], device: torch.device) -> Tensor:
        states = [self.model(torch.tensor([ids], device=self.model.device)).last_hidden_state[0]
                  for ids in rows]
        return nn.utils.rnn.pad_sequence(states, batch_first=True).to(device)


def compact_policy(side: int, head: DecoderConfig) -> Policy:
    """Build the compact policy with its image network trained, without dropout; all random."""
    words = RandomWords()
    minilm.load = lambda source: words  # type: ignore[assignment, misc]
    cameras = tuple(CameraSpec(name, side, side, 'area', (0.5,) * 3, (0.5,) * 3)
                    for name in ('static', 'hand'))
    options = {'vision_strides': [16, 32], 'tune_vision': True, 'dropout': 0.0}
    torch.manual_seed(0)
    return Policy(PolicyConfig(BackboneConfig('compact', options), head), _manifest(cameras),
                  Path('no weights are read'))


def _manifest(cameras: tuple[CameraSpec, ...]) -> Manifest:
    return one_arm('base', 'rotation_vector', 0.1,
                   Normalisation((0.0,) * 6, (0.02,) * 6), cameras)


def _seeded(policy: Policy) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if 'layer_norm' in name or 'layernorm' in name:
                parameter.fill_(1.0 if name.endswith('weight') else 0.0)
            else:
                parameter.normal_(0, 0.02)


def make_batch(policy: Policy, batch_size: int, device: str) -> Batch:
    """Return windows of noise, and labels that the noise does not determine."""
    generator = torch.Generator().manual_seed(1)
    images = {c.name: torch.randint(0, 256, (batch_size, WINDOW, c.height, c.width, 3),
                                    dtype=torch.uint8, generator=generator).to(device)
              for c in policy.manifest.cameras}
    shape = (batch_size, WINDOW, CHUNK)
    arm = torch.rand(*shape, 6, generator=generator) * 2 - 1
    gripper = torch.randint(0, 2, shape, generator=generator).float()
    valid = torch.rand(shape, generator=generator) > 0.1
    return Batch(images, [WORDS[i % len(WORDS)] for i in range(batch_size)], arm.to(device),
                 gripper.unsqueeze(-1).to(device), valid.to(device),
                 torch.zeros(batch_size, WINDOW, 0, device=device))


def our_way(policy: Policy, batch: Batch) -> tuple[Callable[[], Tensor], nn.Module]:
    """Return what computes the total loss, as `train` does, and what is trained."""
    objective = Objective(policy, LossConfig(arm_gripper_loss_ratio=GRIPPER_RATIO)).train()
    texts, device = Texts(policy.backbone), batch.continuous_BTKC.device

    def loss() -> Tensor:
        images = {c.name: normalise_images(batch.images[c.name], c)
                  for c in policy.manifest.cameras}
        return total(objective(images, texts.encode(batch.instructions, device), batch).terms)
    return loss, objective


def reference_way(policy: Policy, batch: Batch, encode: Callable[..., Tensor],
                  ) -> tuple[Callable[[], Tensor], nn.Module]:
    """Return the same for the reference's way; `encode` is its backbone's forward pass."""
    def loss() -> Tensor:
        images = {c.name: rearrange(normalise_images(batch.images[c.name], c),
                                    'b t c h w -> (b t) c h w')
                  for c in policy.manifest.cameras}
        told = [words for words in batch.instructions for _ in range(WINDOW)]
        tokens = rearrange(encode(images, told), '(b t) n d -> b t n d', t=WINDOW)
        chunk = policy.decoder.predict(tokens)
        chunk = ActionChunk(chunk.continuous_BTKC.float(), chunk.binary_logit_BTKG.float())
        found = action_loss(chunk, batch.continuous_BTKC, batch.binary_BTKG, batch.valid_BTK)
        return found.arm + GRIPPER_RATIO * found.gripper
    return loss, policy.train()


def kosmos_reference(policy: Policy) -> Callable[..., Tensor]:
    """Return Kosmos-2's forward pass as the reference runs it."""
    backbone: Any = policy.backbone
    family = copy.copy(backbone.family)

    def image_tokens(model: Any, pixels: Tensor) -> Any:
        parts = [type(family).image_tokens(family, model, half) for half in pixels.chunk(2)]
        return parts[0]._replace(tokens_BND=torch.cat([part.tokens_BND for part in parts]))

    def hidden_states(model: Any, frame: Any) -> Tensor:
        found = model.text_model(inputs_embeds=frame.embeds_BND,
                                 attention_mask=frame.valid_BN.long(), use_cache=False,
                                 output_hidden_states=True)  # and the logits, unused
        return found.hidden_states[-1]

    family.image_tokens, family.hidden_states = image_tokens, hidden_states
    backbone.family = family

    def encode(images: Mapping[str, Tensor], told: list[str]) -> Tensor:
        return backbone(images, backbone.encode_text(backbone.tokenize(told)))
    return encode


def compact_reference(policy: Policy) -> Callable[..., Tensor]:
    """
    Return the compact model's forward pass in the reference's manner.

    The word encoder runs for every frame on the device, each camera by itself, the fusion with an
    additive mask, and all fused tokens are projected to the vocabulary.
    """
    backbone: Any = policy.backbone
    device = next(policy.parameters()).device
    words = backbone._words.model.to(device)
    into = nn.Linear(policy.backbone.feature_dim, backbone.word_embeddings().shape[1]).to(device)
    vocabulary = backbone.word_embeddings().to(device)
    for layer in backbone.fusion:
        layer._attend = functools.partial(_attend_adding, layer._attend)

    def encode(images: Mapping[str, Tensor], told: list[str]) -> Tensor:
        text = backbone.tokenize(told)
        mask = text.mask_BN.to(device)
        with torch.no_grad():
            states = words(text.ids_BN.to(device), mask.long()).last_hidden_state
        states = backbone.text_projection(states) + backbone.text_position[:states.shape[1]]
        encoded = EncodedText(states, mask)
        maps = [backbone._encode_frames(images[name], encoded, 1) for name in backbone.cameras]
        mixed = backbone._mix(maps, encoded)
        _ = into(mixed) @ vocabulary.T
        return backbone.norm(mixed[:, -len(backbone.action_tokens):])
    return encode


def _attend_adding(attend: Callable[..., Tensor], tokens_BND: Tensor, present_BN: Tensor,
                   count: int) -> Tensor:
    """Attend with floats that are added, where the layer itself says what is present."""
    added = torch.zeros_like(present_BN, dtype=torch.float32)
    return attend(tokens_BND, added.masked_fill(~present_BN, float('-inf')), count)


@contextmanager
def autocast(device: str) -> Iterator[None]:
    """Compute in bf16 on a GPU, in fp32 on a CPU."""
    with torch.autocast('cuda', torch.bfloat16, enabled=device != 'cpu'):
        yield


def train(loss_of: Callable[[], Tensor], module: nn.Module, make: Callable[[nn.Module], Any],
          windows: int, device: str, steps: int, warm_up: int) -> Run:
    """Train on one batch, and time the steps after the warm-up."""
    optimizer, losses = make(module), []
    trained = [p for p in module.parameters() if p.requires_grad]
    if device != 'cpu':
        torch.cuda.reset_peak_memory_stats()
    for step in range(warm_up + steps):
        if step == warm_up:
            begin = _now(device)
        with autocast(device):
            loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, CLIP)
        optimizer.step()
        losses.append(loss.detach())
    seconds = _now(device) - begin
    peak = 0.0 if device == 'cpu' else torch.cuda.max_memory_allocated() / 1e9
    return Run(windows * steps / seconds, peak, torch.stack(losses).tolist())


def _now(device: str) -> float:
    if device != 'cpu':
        torch.cuda.synchronize()
    return time.perf_counter()


def default_adamw(module: nn.Module) -> torch.optim.Optimizer:
    """Return AdamW as the reference creates it."""
    return torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], LEARNING_RATE)


def our_adamw(module: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser that `train` creates."""
    fused = next(module.parameters()).device.type == 'cuda'
    settings = optimizer.OptimiserConfig(lr=LEARNING_RATE)
    return optimizer.create(module, settings, fused=fused)


def compare(name: str, make_policy: Callable[[bool], Policy],
            reference: Callable[[Policy], Callable[..., Tensor]], batch_size: int,
            options: argparse.Namespace) -> None:
    """Print two or three rows: the reference's way, ours, ours compiled."""
    device = 'cpu' if options.smoke else 'cuda'
    base: Run | None = None
    ways = ['reference', 'ours'] + (['ours, compiled'] if options.compile else [])
    fused = depthwise.is_fused_on
    for way in ways:
        depthwise.is_fused_on = fused if way != 'reference' else lambda device: False
        policy = make_policy(way == 'reference').to(device)
        batch = make_batch(policy, batch_size, device)
        if way == 'reference':
            loss_of, module = reference_way(policy, batch, reference(policy))
        else:
            if way == 'ours, compiled':
                tuning.compile_layers(policy, graphs=not options.smoke)
            loss_of, module = our_way(policy, batch)
        found = train(loss_of, module, default_adamw if way == 'reference' else our_adamw,
                      batch_size, device, options.steps, options.warm_up)
        base = base or found
        apart = max(abs(a - b) / b for a, b in zip(found.losses, base.losses))
        print(f'| {name} | {way} | {batch_size} | {found.windows_per_s:.1f} | '
              f'{found.windows_per_s / base.windows_per_s:.2f} | {found.peak_gb:.0f} | '
              f'{found.losses[0]:.5f} | {found.losses[-1]:.5f} | {apart:.1e} |', flush=True)
        del policy, batch, loss_of, module
        gc.collect()
        if device != 'cpu':
            torch.cuda.empty_cache()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sizes', nargs='+', choices=('compact', 'kosmos2'),
                        default=['compact', 'kosmos2'])
    parser.add_argument('--steps', type=int, default=8, help='timed steps')
    parser.add_argument('--warm-up', type=int, default=3, help='steps before them')
    parser.add_argument('--compile', action='store_true', help='also with compiled layers')
    parser.add_argument('--smoke', action='store_true', help='tiny networks on the CPU')
    options = parser.parse_args()
    torch.set_float32_matmul_precision('high')
    device = 'cpu' if options.smoke else 'cuda'
    where = 'CPU' if options.smoke else torch.cuda.get_device_name()
    print(f'{where}, torch {torch.__version__}, {options.steps} steps after {options.warm_up}\n')
    print('| model | way | batch | windows/s | ratio | peak GB | first loss | last loss | '
          'largest relative difference |\n' + '|---' * 9 + '|')
    small = DecoderConfig(hidden_size=16, num_layers=1, window_size=WINDOW)
    if 'compact' in options.sizes:
        head = small if options.smoke else DecoderConfig(hidden_size=512, num_layers=2)
        compare('compact', lambda _: compact_policy(32 if options.smoke else 128, head),
                compact_reference, 2 if options.smoke else 64, options)
    if 'kosmos2' in options.sizes:
        full = importlib.import_module('backbones').FULL['kosmos2']
        sizes, side = ({}, random_vlms.side('kosmos2')) if options.smoke else full[2:0:-1]
        head = small if options.smoke else DecoderConfig()
        compare('Kosmos-2', lambda eager: kosmos_policy(sizes, side, 'eager' if eager else 'sdpa',
                                                        head, device),
                kosmos_reference, 2 if options.smoke else 4, options)


if __name__ == '__main__':
    main()
