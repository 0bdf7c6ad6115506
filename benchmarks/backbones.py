"""
Full-size vision-language models with random weights, acting for one episode through the actor.

For each family: parameters, peak GPU memory, and the latency of a tick from two uint8 images of
640x480 to the action on the host: run eagerly, as one CUDA graph (the actor's way, where the
family allows it) and as one CUDA graph of compiled layers. LSTM 1024 x 4, window 16, chunk 10,
batch 1, bf16 backbone. What follows an action (the other lanes of the history) is done between
the ticks, as a node does it while it waits for the next frames. The error is the largest
difference of a chunk's normalised arm values to the eager tick's, in the episode.

    PYTHONPATH=. python benchmarks/backbones.py
    PYTHONPATH=. python benchmarks/backbones.py --smoke      # tiny networks on the CPU
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
import gc
import importlib
from pathlib import Path
import sys
import tempfile
import time
from typing import Any, NamedTuple

import numpy as np
from ros2_lstm_policy.manifest import CameraSpec, Normalisation, one_arm
from ros2_lstm_policy.model.backbones.hugging_face.backbone import ASSETS
from ros2_lstm_policy.model.policy import BackboneConfig, DecoderConfig, Policy, PolicyConfig
from ros2_lstm_policy.runtime.actor import PolicyActor
from ros2_lstm_policy.runtime.engine import Precision
from ros2_lstm_policy.types import Observation
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'test'))
random_vlms = importlib.import_module('random_vlms')

INSTRUCTION = 'pick up the red block and put it into the bowl, then close the upper drawer'
WARM_UP = 5
VISION_L = {'hidden_size': 1024, 'intermediate_size': 4096, 'num_hidden_layers': 24,
            'num_attention_heads': 16, 'patch_size': 14}


class Model(NamedTuple):
    """A published model's size; the numbers are those of its config.json."""

    name: str
    side: int
    sizes: Mapping[str, Mapping[str, Any]]


FULL = {
    'kosmos2': Model('Kosmos-2', 224, {
        'text': {'vocab_size': 65037, 'embed_dim': 2048, 'layers': 24, 'ffn_dim': 8192,
                 'attention_heads': 32, 'max_position_embeddings': 2048},
        'vision': {**VISION_L, 'image_size': 224}, 'top': {'latent_query_num': 64}}),
    'paligemma': Model('PaliGemma 3B', 224, {
        'text': {'vocab_size': 257216, 'hidden_size': 2048, 'intermediate_size': 16384,
                 'num_hidden_layers': 18, 'num_attention_heads': 8, 'num_key_value_heads': 1,
                 'head_dim': 256},
        'vision': {'hidden_size': 1152, 'intermediate_size': 4304, 'num_hidden_layers': 27,
                   'num_attention_heads': 16, 'image_size': 224, 'patch_size': 14,
                   'projection_dim': 2048},
        'top': {'projection_dim': 2048, 'hidden_size': 2048}}),
    'smolvlm': Model('SmolVLM 500M', 512, {
        'text': {'vocab_size': 49280, 'hidden_size': 960, 'intermediate_size': 2560,
                 'num_hidden_layers': 32, 'num_attention_heads': 15, 'num_key_value_heads': 5,
                 'max_position_embeddings': 8192},
        'vision': {'hidden_size': 768, 'intermediate_size': 3072, 'num_hidden_layers': 12,
                   'num_attention_heads': 12, 'image_size': 512, 'patch_size': 16},
        'top': {'scale_factor': 4}}),
    'qwen2_5_vl': Model('Qwen2.5-VL 3B', 224, {
        'text': {'vocab_size': 151936, 'hidden_size': 2048, 'intermediate_size': 11008,
                 'num_hidden_layers': 36, 'num_attention_heads': 16, 'num_key_value_heads': 2,
                 'max_position_embeddings': 32768,
                 'rope_scaling': {'type': 'mrope', 'rope_type': 'default', 'rope_theta': 1e6,
                                  'mrope_section': [16, 24, 24]}},
        'vision': {'depth': 32, 'hidden_size': 1280, 'intermediate_size': 3420, 'num_heads': 16,
                   'out_hidden_size': 2048, 'window_size': 112,
                   'fullatt_block_indexes': [7, 15, 23, 31]},
        'top': {'tie_word_embeddings': True}}),
    'llava': Model('LLaVA 1.5 7B', 336, {
        'text': {'vocab_size': 32064, 'hidden_size': 4096, 'intermediate_size': 11008,
                 'num_hidden_layers': 32, 'num_attention_heads': 32, 'num_key_value_heads': 32,
                 'max_position_embeddings': 4096},
        'vision': {**VISION_L, 'image_size': 336}}),
    'florence2': Model('Florence-2 large', 768, {
        'text': {'vocab_size': 51289, 'd_model': 1024, 'encoder_layers': 12, 'decoder_layers': 12,
                 'encoder_ffn_dim': 4096, 'decoder_ffn_dim': 4096, 'encoder_attention_heads': 16,
                 'decoder_attention_heads': 16, 'max_position_embeddings': 4096},
        'vision': {'embed_dim': [256, 512, 1024, 2048], 'num_heads': [8, 16, 32, 64],
                   'num_groups': [8, 16, 32, 64], 'depths': [1, 1, 9, 1], 'window_size': 12,
                   'projection_dim': 1024, 'max_position_embeddings': 50}}),
}


class Episode(NamedTuple):
    """
    One way to run the same episode.

    :param first_s: the first tick, and what was made for it before.
    :param chunks: (T, K, 6), arm values.
    """

    first_s: float
    ticks_ms: np.ndarray
    chunks: np.ndarray


class Row(NamedTuple):
    """What was measured for one family."""

    parameters: int
    memory_gb: float
    eager: Episode
    graph: Episode
    compiled: Episode | None


def make_policy(kind: str, model: Model, device: str, head: DecoderConfig) -> Policy:
    """Build the policy from a config.json alone and fill it with small random weights."""
    with tempfile.TemporaryDirectory() as directory:
        assets = Path(directory) / ASSETS
        words = random_vlms.tokenizer(kind)
        random_vlms.config(kind, words, model.sizes).save_pretrained(assets)
        words.save_pretrained(assets)
        cameras = tuple(CameraSpec(name, model.side, model.side, 'bicubic', (0.5,) * 3,
                                   (0.5,) * 3) for name in ('hand', 'static'))
        options = {'directory': str(assets),
                   'dtype': 'float32' if device == 'cpu' else 'bfloat16'}
        policy = Policy(
            PolicyConfig(BackboneConfig(random_vlms.family(kind), options), head),
            one_arm('base', 'rotation_vector', 0.05,
                    Normalisation((0.0,) * 6, (0.02,) * 6), cameras),
            Path(directory)).to(device).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in policy.backbone.parameters():  # type: ignore[attr-defined]
            parameter.normal_(0, 0.02)
    return policy


def episode(policy: Policy, steps: int, **ways: Any) -> Episode:
    """Act on noise from two cameras."""
    made = time.perf_counter()
    actor = PolicyActor(policy, **ways)
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (8, 480, 640, 3), dtype=np.uint8)
    times, chunks = [], []
    for step in range(steps + WARM_UP):
        seen = Observation(step, {'hand': frames[step % 8], 'static': frames[(step + 3) % 8]})
        begin = time.perf_counter()
        decision = actor.act(seen, INSTRUCTION)
        times.append(time.perf_counter() - begin)
        chunks.append(decision.chunk[:, :6])
        decision.settle()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if step == 0:
            first_s = time.perf_counter() - made
    return Episode(first_s, 1e3 * np.array(times[WARM_UP:]), np.stack(chunks))


def measure(kind: str, model: Model, device: str, steps: int, head: DecoderConfig,
            compiled: bool) -> Row:
    """Run one family's episode in every way."""
    policy = make_policy(kind, model, device, head)
    parameters = sum(parameter.numel() for parameter in policy.parameters())
    precision: Precision = 'fp32' if device == 'cpu' else 'bf16'
    if device != 'cpu':
        torch.cuda.reset_peak_memory_stats()
    eager = episode(policy, steps, precision=precision, cuda_graph=False)
    graph = episode(policy, steps, precision=precision)
    memory_gb = 0.0 if device == 'cpu' else torch.cuda.max_memory_allocated() / 1e9
    fastest = episode(policy, steps, precision=precision, compiled=True) if compiled else None
    return Row(parameters, memory_gb, eager, graph, fastest)


def line(name: str, row: Row) -> str:
    """Format a row of the table."""
    cells = [name, f'{row.parameters / 1e9:.2f}', f'{row.memory_gb:.1f}',
             _times(row.eager.ticks_ms)]
    scale = np.abs(row.eager.chunks).max()
    for way in (row.graph, row.compiled):
        if way is None:
            cells += ['-'] * 4
            continue
        gain = np.median(row.eager.ticks_ms) / np.median(way.ticks_ms)
        error = np.abs(way.chunks - row.eager.chunks).max() / scale
        cells += [_times(way.ticks_ms), f'{gain:.1f}', f'{error:.4f}', f'{way.first_s:.1f}']
    return '| ' + ' | '.join(cells) + ' |'


def _times(ticks_ms: np.ndarray) -> str:
    return f'{np.median(ticks_ms):.2f} ({np.percentile(ticks_ms, 99):.2f})'


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--families', nargs='+', choices=tuple(FULL),
                        default=['kosmos2', 'paligemma', 'smolvlm', 'qwen2_5_vl'])
    parser.add_argument('--steps', type=int, default=60, help='ticks of the episode')
    parser.add_argument('--no-compile', action='store_true', help='leave compiled layers out')
    parser.add_argument('--smoke', action='store_true', help='tiny networks on the CPU')
    options = parser.parse_args()
    device = 'cpu' if options.smoke else 'cuda'
    steps = 5 if options.smoke else options.steps
    head = DecoderConfig(hidden_size=16, num_layers=2) if options.smoke else \
        DecoderConfig(window_size=16)
    where = 'CPU' if options.smoke else torch.cuda.get_device_name()
    print(f'{where}, torch {torch.__version__}, {steps} ticks after {WARM_UP}\n')
    print('| model | parameters, 10^9 | peak GB | eager, ms: median (p99) | one graph, ms | '
          'eager / graph | error | made in s | compiled graph, ms | eager / compiled | error | '
          'made in s |\n' + '|---' * 12 + '|')
    for kind in options.families:
        model = FULL[kind]
        if options.smoke:
            model = Model(f'{model.name}, tiny', random_vlms.side(kind), {})
        print(line(model.name, measure(kind, model, device, steps, head,
                                       not (options.smoke or options.no_compile))), flush=True)
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == '__main__':
    main()
