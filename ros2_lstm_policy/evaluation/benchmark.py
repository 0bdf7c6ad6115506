"""
Command `benchmark`: how long this machine takes for a decision of a policy, and what it could.

    ros2 run ros2_lstm_policy benchmark --checkpoint checkpoints/compact_libero --output outputs/b
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
from pathlib import Path
import re
import sys
import time
from typing import Any, TYPE_CHECKING

from ros2_lstm_policy import config, config_help

if TYPE_CHECKING:
    from ros2_lstm_policy.evaluation.floor import Floor
    from ros2_lstm_policy.evaluation.latency import Way
    from ros2_lstm_policy.model.policy import Policy

NAME = 'benchmark'
WAYS = {'cpu': ('eager', 'prepared'), 'cuda': ('eager', 'graph', 'compiled')}
_DEFAULT_WAYS = {'cpu': ('eager', 'prepared'), 'cuda': ('eager', 'graph')}
_ROW_LIMIT = 1_000_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    options = config.parse_arguments(_parser(), arguments, 'overrides')
    try:
        _check(options)
        report = _measure(options)
    except (ValueError, RuntimeError, OSError) as error:
        print(f'{NAME}: {" ".join(str(error).split())}', file=sys.stderr)
        return 2
    text = markdown(report)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / f'{NAME}.md').write_text(text, encoding='utf-8')
        (options.output / f'{NAME}.json').write_text(json.dumps(report, indent=2) + '\n',
                                                     encoding='utf-8')
        draw(options.output / f'{NAME}.png', report)
    print(text, end='')
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=NAME, description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--checkpoint', type=Path, help='the policy')
    parser.add_argument('--config', type=Path, help='or a YAML with policy and manifest, as '
                        'init_checkpoint takes it: random weights')
    parser.add_argument('--random-weights', action='store_true', help='with --config: of the '
                        'backbone too, whose directory then needs config.json and tokenizer alone')
    parser.add_argument('--device', default='', help='cpu, cuda or cuda:N; default: a GPU where '
                        'there is one')
    parser.add_argument('--precision', choices=('fp32', 'bf16'), help='of the backbone; default: '
                        'bf16 on a GPU, fp32 on a CPU')
    parser.add_argument('--ways', nargs='+', choices=sorted({*WAYS['cpu'], *WAYS['cuda']}),
                        help='on a CPU: eager, prepared (the default: both). On a GPU: eager, '
                        'graph, compiled (the default: the first two)')
    parser.add_argument('--ticks', type=int, default=200, help='back to back (200)')
    parser.add_argument('--paced-ticks', type=int, default=50, help="at the policy's control "
                        'rate (50); 0 to leave them out')
    parser.add_argument('--image-size', default='480x640', metavar='ROWSxCOLUMNS',
                        help='of the raw images (480x640)')
    parser.add_argument('--instruction', default='pick up the red block and put it into the bowl')
    parser.add_argument('--threads', type=int, default=1, help='of an operation on a CPU (1)')
    parser.add_argument('--no-floor', action='store_true',
                        help='leave out what the machine could do')
    parser.add_argument('--output', type=Path, help=f'folder for {NAME}.md, .json and .png')
    parser.add_argument('--keys', action=config_help.ShowKeys,
                        module='ros2_lstm_policy.model.untrained', name='InitConfig')
    parser.add_argument('overrides', nargs='*', metavar='key.subkey=value',
                        help='changes to the configuration; --keys lists them all')
    return parser


def _check(options: argparse.Namespace) -> None:
    """Refuse what cannot be measured, before anything heavy is loaded."""
    if (options.checkpoint is None) == (options.config is None):
        raise ValueError('expected either --checkpoint or --config, found '
                         f'{"neither" if options.config is None else "both"}')
    if options.checkpoint and (options.overrides or options.random_weights):
        raise ValueError('key=value and --random-weights change a --config; a checkpoint stays '
                         'as it is')
    for name, least in (('ticks', 1), ('paced_ticks', 0), ('threads', 1)):
        if not least <= getattr(options, name) <= _ROW_LIMIT:
            raise ValueError(f'--{name.replace("_", "-")}: expected {least} to {_ROW_LIMIT}, '
                             f'found {getattr(options, name)}')
    size = re.fullmatch(r'([1-9]\d{0,4})x([1-9]\d{0,4})', options.image_size)
    if size is None:
        raise ValueError(f'--image-size: expected ROWSxCOLUMNS like 480x640, found '
                         f'{options.image_size!r}')
    options.image_size = (int(size[1]), int(size[2]))


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    begin = time.perf_counter()
    import torch
    from ros2_lstm_policy.evaluation import floor, latency
    from ros2_lstm_policy.runtime.engine import EagerEngine, Precision
    device = _device(options.device)
    ways = _ways(options.ways, device.type)
    torch.set_num_threads(options.threads)
    policy = _policy(options, device).to(device).eval()
    loaded_s = time.perf_counter() - begin
    precision: Precision = options.precision or ('bf16' if device.type == 'cuda' else 'fp32')
    scene = latency.Scene(options.image_size, options.instruction)
    measured = latency.measure(policy, scene, ways, options.ticks, options.paced_ticks,
                               precision=precision, threads=options.threads)
    least = None if options.no_floor else floor.measure(
        EagerEngine(policy, precision, options.threads), scene.observations(policy)[0].images,
        options.instruction)
    return _plain(options, policy, {'device': device_name(device), 'torch': torch.__version__,
                                    'precision': precision, 'threads': options.threads,
                                    'load_s': loaded_s}, measured, least)


def _device(wanted: str) -> Any:
    import torch
    try:
        device = torch.device(wanted or ('cuda' if torch.cuda.is_available() else 'cpu'))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f'device {wanted!r} cannot be used: {error}') from error
    if device.type not in WAYS:
        raise ValueError(f'device {wanted!r}: expected cpu or cuda')
    return device


def _ways(wanted: Sequence[str] | None, kind: str) -> list[str]:
    """Return the ways in the order in which they do not disturb each other."""
    unknown = [name for name in wanted or () if name not in WAYS[kind]]
    if unknown:
        raise ValueError(f'--ways: expected {", ".join(WAYS[kind])} on {kind}, found '
                         f'{", ".join(unknown)}')
    return [name for name in WAYS[kind] if name in (wanted or _DEFAULT_WAYS[kind])]


def device_name(device: Any) -> str:
    """Return the make of the GPU, or of the CPU."""
    import platform

    import torch
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        lines = []
    named = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return named[0] if named else platform.processor() or platform.machine()


def _policy(options: argparse.Namespace, device: Any) -> Policy:
    from ros2_lstm_policy.model import checkpoint, untrained
    if options.checkpoint:
        return checkpoint.load(options.checkpoint, device)
    chosen = config.load(untrained.InitConfig, options.config, options.overrides)
    if options.random_weights:
        return untrained.random(chosen, 0, str(options.config), device)
    return untrained.untrained(chosen, 0, str(options.config))


def _plain(options: argparse.Namespace, policy: Policy, machine: dict[str, Any],
           ways: Sequence[Way], least: Floor | None) -> dict[str, Any]:
    """Return all numbers as plain values."""
    decoder = policy.config.decoder
    return {
        'policy': str(options.checkpoint or options.config),
        'family': policy.config.backbone.family,
        'parameters': sum(parameter.numel() for parameter in policy.parameters()),
        'lstm': f'{decoder.num_layers} x {decoder.hidden_size}, window {decoder.window_size}',
        'cameras': [f'{camera.name} {camera.height}x{camera.width}'
                    for camera in policy.manifest.cameras],
        'images': 'x'.join(map(str, options.image_size)),
        'control_rate_hz': 1 / policy.manifest.control_period_s, **machine,
        'ways': [{'way': way.name, 'first_action_s': way.first_action_s,
                  'difference': way.difference, 'gpu_gb': way.gpu_gb,
                  'process_gb': way.process_gb, 'back_to_back': _times(way.back_to_back),
                  'paced': None if way.paced is None else _times(way.paced)} for way in ways],
        'floor': None if least is None else {
            'weight_bytes': least.weight_bytes, 'operations': least.operations,
            'read_bytes_s': least.read_bytes_s, 'operations_s': least.operations_s,
            'read_ms': least.read_ms, 'compute_ms': least.compute_ms,
            'frames_ms': least.frames_ms, 'least_ms': least.least_ms,
            'products_ms': least.products_ms}}


def _times(times: Any) -> dict[str, Any]:
    return {'ticks': len(times.total), 'median_ms': times.median(), 'p99_ms': times.p99(),
            'stages_ms': times.stage_medians()}


def markdown(report: dict[str, Any]) -> str:
    """Return the tables."""
    lines = [f'{report["policy"]} ({report["family"]}, {report["parameters"]:,} parameters, LSTM '
             f'{report["lstm"]}) on {report["device"]}, torch {report["torch"]}, '
             f'{report["precision"]}, {report["threads"]} thread(s); raw images '
             f'{report["images"]}, cameras {", ".join(report["cameras"])}.', '']
    stages = list(dict.fromkeys(name for way in report['ways']
                                for name in way['back_to_back']['stages_ms']))
    lines += ['| way | ticks | ms: median (p99) | ' + ' | '.join(stages) + ' |',
              '|---' * (3 + len(stages)) + '|']
    for way in report['ways']:
        for how, times in (('back to back', way['back_to_back']),
                           (f'at {report["control_rate_hz"]:.3g} Hz', way['paced'])):
            if times is not None:
                cells = [f'{times["stages_ms"][name]:.2f}' if name in times['stages_ms'] else '-'
                         for name in stages]
                lines.append(f'| {way["way"]} | {times["ticks"]} {how} | {times["median_ms"]:.2f} '
                             f'({times["p99_ms"]:.2f}) | {" | ".join(cells)} |')
    lines += ['', f'Loaded in {report["load_s"]:.1f} s. A tick is from the raw images to the '
              'action; what comes after it is not counted in it.', '',
              '| way | first action, s | difference of its actions | GPU, GB | process, GB |',
              '|---|---|---|---|---|']
    lines += [f'| {way["way"]} | {way["first_action_s"]:.1f} | {way["difference"]:.1e} | '
              f'{way["gpu_gb"]:.1f} | {way["process_gb"]:.1f} |' for way in report['ways']]
    return '\n'.join([*lines, *_floor_lines(report['floor'])]) + '\n'


def _floor_lines(floor: dict[str, Any] | None) -> list[str]:
    if floor is None:
        return []
    return ['', '| the machine, measured | | ms |', '|---|---|---|',
            f'| weights, each read once | {floor["weight_bytes"] / 1e6:.1f} MB at '
            f'{floor["read_bytes_s"] / 1e9:.1f} GB/s | {floor["read_ms"]:.2f} |',
            f'| products at the best rate | {floor["operations"] / 1e9:.2f} GFLOP at '
            f'{floor["operations_s"] / 1e12:.3g} TFLOP/s | {floor["compute_ms"]:.2f} |',
            f'| raw images onto the device | | {floor["frames_ms"]:.2f} |',
            f'| **floor**: the larger of the first two, and the third | | '
            f'**{floor["least_ms"]:.2f}** |',
            f'| the same products alone, one after the other | by the library | '
            f'{floor["products_ms"]:.2f} |']


def draw(path: Path, report: dict[str, Any]) -> None:
    """Draw each way's stages as a bar, its p99 as a line, and the floor across."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    ways = report['ways']
    figure = Figure(figsize=(8, 1.6 + 0.6 * len(ways)), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colours = {name: f'C{number}' for number, name in enumerate(dict.fromkeys(
        name for way in ways for name in way['back_to_back']['stages_ms']))}
    for row, way in enumerate(ways):
        left, times = 0.0, way['back_to_back']
        for name, taken in times['stages_ms'].items():
            axes.barh(row, taken, left=left, color=colours[name], height=0.6,
                      label=None if name in axes.get_legend_handles_labels()[1] else name)
            left += taken
        axes.plot([times['p99_ms']] * 2, [row - 0.35, row + 0.35], color='black')
    if report['floor'] is not None:
        axes.axvline(report['floor']['least_ms'], color='grey', linestyle='--', label='floor')
    axes.set_yticks(range(len(ways)), [way['way'] for way in ways])
    axes.invert_yaxis()
    axes.set_xlabel('ms, median by stage; black: p99')
    axes.set_title(f'{report["policy"]} on {report["device"]}', fontsize='small')
    axes.legend(fontsize='small')
    figure.savefig(path, dpi=100)


if __name__ == '__main__':
    sys.exit(main())
