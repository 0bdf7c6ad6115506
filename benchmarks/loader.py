"""
Measure the training loader: throughput, memory over an epoch, time to the first batch.

Bags of growing size are written and indexed once; then a new process opens the index and takes a
batch. Throughput is of the loader that `train` uses, with windows of 8, two cameras at 128x128
and 64 windows a batch, against the samples that one training step of the compact policy consumes
on the same machine.

    python benchmarks/loader.py --gigabytes 1 10
    python benchmarks/loader.py --device cuda --workers 8
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
import itertools
import os
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
BATCH = 64
STEPS = 100  # of an episode
HEIGHT, WIDTH = 480, 640
_PAIR_BYTES = 2 * HEIGHT * WIDTH * 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 where the loader feeds the device twice over."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('--gigabytes', type=float, nargs='*', default=(1.0, 10.0),
                        help='sizes of the folders of bags that are compared')
    parser.add_argument('--episodes', type=int, default=60, help='of the store for throughput')
    parser.add_argument('--batches', type=int, default=60, help='batches to measure')
    parser.add_argument('--workers', type=int, default=2, help='processes that gather')
    parser.add_argument('--device', default='cpu', help='where the training step runs')
    parser.add_argument('--directory', type=Path, help='folder on the disk to be measured')
    parser.add_argument('--first', type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.first is not None:
        return _open(*options.first)
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        folder = Path(scratch)
        if options.gigabytes:
            _time_to_first_batch(options.gigabytes, folder)
        return _throughput(options, folder)


def _manifest() -> Any:
    from ros2_lstm_policy import config
    from ros2_lstm_policy.model.untrained import InitConfig
    return config.load(InitConfig, ROOT / 'config' / 'policy_compact.yaml').manifest


def _time_to_first_batch(sizes_gb: Sequence[float], folder: Path) -> None:
    """Write bags, index them, and open the index in a new process."""
    print('time to the first batch of 64 windows, bags of two raw cameras at 640x480')
    print(f'{"GB of bags":>11}{"episodes":>10}{"indexed once [s]":>18}{"opened [s]":>12}'
          f'{"first batch [s]":>17}{"ratio":>7}')
    reference_s = None
    for size_gb in sizes_gb:
        bags, cache = folder / f'bags{size_gb:g}', folder / 'cache'
        episodes = max(1, round(size_gb * 1e9 / (_PAIR_BYTES * STEPS)))
        _write_bags(bags, episodes)
        built_s = _opened(bags, cache)[0]
        opened_s, first_s = min((_opened(bags, cache) for _ in range(5)), key=lambda s: s[1])
        reference_s = reference_s or first_s
        size = sum(p.stat().st_size for p in bags.rglob('*') if p.is_file()) / 1e9
        print(f'{size:11.2f}{episodes:10}{built_s:18.1f}{opened_s:12.4f}'
              f'{first_s:17.3f}{first_s / reference_s:7.2f}', flush=True)
        shutil.rmtree(bags)
        shutil.rmtree(cache)


def _write_bags(folder: Path, episodes: int) -> None:
    from ros2_lstm_policy.data.rosbag import EpisodeBagWriter, EpisodeInfo
    random = np.random.default_rng(0)
    image = random.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    for number in range(episodes):
        info = EpisodeInfo(f'e{number:05d}', 'expert', 'base', 'rotation_vector', 0.1)
        with EpisodeBagWriter(folder / info.name, info, f'task {number % 20}', 1) as writer:
            for step in range(STEPS):
                stamp_ns = (step + 1) * 10**8
                for camera in ('static', 'hand'):
                    writer.write_frame(camera, stamp_ns, image)
                writer.write_action(stamp_ns, random.normal(0, 0.01, 6), float(step % 2))


def _opened(bags: Path, cache: Path) -> tuple[float, float]:
    """Return the seconds that a new process took to open the store, and to its first batch."""
    result = subprocess.run([sys.executable, __file__, '--first', str(bags), str(cache)],
                            check=True, capture_output=True, text=True)
    opened_s, first_s = result.stdout.split()[-2:]
    return float(opened_s), float(first_s)


def _open(bags: Path, cache: Path) -> int:
    """Open the store of a folder of bags, take one batch and print both times."""
    from ros2_lstm_policy.data.build import open_store, StoreRequest
    from ros2_lstm_policy.data.sources import SourceSpec
    from ros2_lstm_policy.data.windows import gather, WindowIndex
    import torch
    torch.set_num_threads(1)
    manifest = _manifest()
    begin_s = time.perf_counter()
    store = open_store(StoreRequest((SourceSpec(bags, kind='bag'),), manifest.cameras), cache, 2)
    opened_s = time.perf_counter() - begin_s
    index = WindowIndex(store.lengths, 8, 10)
    gather(store, index, np.random.default_rng(0).integers(0, len(index), BATCH), manifest)
    print(opened_s, time.perf_counter() - begin_s)
    return 0


def _throughput(options: argparse.Namespace, folder: Path) -> int:
    store = _write_store(folder / 'store', options.episodes)
    size_gb = sum(path.stat().st_size for path in store.iterdir()) / 1e9
    kinds = ['disk', 'memory'] + (['device'] if options.device != 'cpu' else [])
    modules = {kind: _module(store, kind, options, folder) for kind in kinds}
    loads = {kind: _loads(module, options) for kind, module in modules.items()}
    step = _consumption(modules[kinds[-1]], options)
    print(f'\nloader with {options.workers} workers, {options.episodes * STEPS} steps '
          f'({size_gb:.2f} GB); one training step of the compact policy on {options.device}: '
          f'{1e3 * BATCH / step:.1f} ms, {step:.0f} windows/s')
    print(f'{"frames on":10}{"windows/s":>11}{"against the step":>18}{"own memory [MB]":>24}')
    good = False
    for kind, (rate, begin_mb, end_mb) in loads.items():
        good |= rate >= 2 * step
        print(f'{kind:10}{rate:11.0f}{rate / step:17.1f}x{begin_mb:12.0f} to {end_mb:5.0f} MB')
    return 0 if good else 1


def _write_store(path: Path, episodes: int) -> Path:
    from ros2_lstm_policy.data.store import StoredEpisode, StoreWriter
    manifest, random = _manifest(), np.random.default_rng(0)
    writer = StoreWriter(path, manifest.cameras)
    for number in range(episodes):
        images = {c.name: random.integers(0, 255, (STEPS, c.height, c.width, 3), np.uint8)
                  for c in manifest.cameras}
        writer.append(StoredEpisode(f'e{number}', f'task {number % 20}', STEPS), images,
                      random.normal(0, 0.01, (STEPS, 6)), np.arange(STEPS) % 2.0,
                      np.arange(STEPS) * 10**8)
    writer.close()
    return path


def _module(store: Path, resident: str, options: argparse.Namespace, folder: Path) -> Any:
    """Assemble a run of the compact configuration, as `train` does."""
    import logging

    from ros2_lstm_policy import config
    from ros2_lstm_policy.training import run
    from ros2_lstm_policy.training.config import TrainConfig
    logging.getLogger('pytorch_lightning').setLevel(logging.ERROR)
    chosen = config.load(TrainConfig, ROOT / 'config' / 'train_compact.yaml', [
        'data.sources=[]', f'data.store={store}', f'output={folder / "run"}',
        f'data.loader.batch_size={BATCH}', f'data.loader.workers={options.workers}',
        f'data.loader.resident={resident}'])
    return run.assemble(chosen, tell=lambda line: None)


def _batches(module: Any, device: str, count: int) -> Iterator[Any]:
    """Yield batches on the device, as Lightning does it."""
    import torch
    for batch in itertools.islice(iter(module.data.train_loader()), count):
        moved = batch._replace(windows=batch.windows._replace(
            images={n: t.to(device, non_blocking=True) for n, t in batch.windows.images.items()},
            **{name: getattr(batch.windows, name).to(device, non_blocking=True)
               for name in ('arm_BTKA', 'gripper_open_BTK', 'valid_BTK')}))
        yield module.data.on_device(moved, torch.device(device))


def _loads(module: Any, options: argparse.Namespace) -> tuple[float, float, float]:
    """Return windows a second, and this process's own memory after 5 batches and at the end."""
    batches = _batches(module, options.device, options.batches + 5)
    for _ in range(5):
        next(batches)
    begin_mb, begin_s = _own_memory_mb(), time.perf_counter()
    for _ in batches:
        pass
    _synchronise(options.device)
    rate = options.batches * BATCH / (time.perf_counter() - begin_s)
    return rate, begin_mb, _own_memory_mb()


def _consumption(module: Any, options: argparse.Namespace) -> float:
    """Return the windows a second that training steps take when a batch is always there."""
    import torch
    module.to(options.device).train()
    batch = next(_batches(module, options.device, 1))
    stepper = torch.optim.AdamW([p for p in module.objective.parameters() if p.requires_grad],
                                fused=options.device != 'cpu')
    warm_up, count = (10, 30) if options.device != 'cpu' else (0, 1)
    for _ in range(warm_up):
        _step(module, batch, stepper, options.device)
    _synchronise(options.device)
    begin_s = time.perf_counter()
    for _ in range(count):
        _step(module, batch, stepper, options.device)
    _synchronise(options.device)
    return count * BATCH / (time.perf_counter() - begin_s)


def _step(module: Any, batch: Any, stepper: Any, device: str) -> None:
    from ros2_lstm_policy.training.objective import total
    import torch
    with torch.autocast(device, torch.bfloat16, enabled=device != 'cpu'):
        loss = total(module.losses(batch, module.config.augmentation).terms)
    loss.backward()
    stepper.step()
    stepper.zero_grad(set_to_none=True)


def _synchronise(device: str) -> None:
    import torch
    if device != 'cpu':
        torch.cuda.synchronize()


def _own_memory_mb() -> float:
    for line in Path(f'/proc/{os.getpid()}/status').read_text().splitlines():
        if line.startswith('RssAnon'):
            return int(line.split()[1]) / 1e3
    raise RuntimeError('no RssAnon in /proc')


if __name__ == '__main__':
    sys.exit(main())
