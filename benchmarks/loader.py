"""
Measure the training loader: throughput, memory over an epoch, time to the first batch.

Time to the first batch: bags of growing size are written and indexed once; then a new process
opens the index and takes a batch.

Throughput and memory: the loader that `train` uses gives one whole epoch, every window once, with
windows of 8 and two cameras at 128x128, 64 windows a batch, to the device; against what `train`'s
own step (objective, augmentation, optimiser, average of the weights) takes there when a batch is
always ready, and against the same steps fed by the loader. Memory is that of the training process
and its workers together, each page counted once, without the mapped pages of the store.

    python benchmarks/loader.py --gigabytes 1 10
    python benchmarks/loader.py --gigabytes --device cuda --workers 8     # without the first part
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
import itertools
import multiprocessing
import os
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).parents[1]
BATCH = 64
STEPS = 100  # of an episode
HEIGHT, WIDTH = 480, 640
PARTS, LOOKS = 8, 48  # of an epoch, in which memory is looked at
BATCH_MB = BATCH * 8 * 2 * 128 * 128 * 3 / 1e6
_PAIR_BYTES = 2 * HEIGHT * WIDTH * 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 where a loader feeds the device twice over in flat memory."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('--gigabytes', type=float, nargs='*', default=(1.0, 10.0),
                        help='sizes of the folders of bags that are compared; none skips this')
    parser.add_argument('--episodes', type=int, default=100, help='of the store for throughput')
    parser.add_argument('--steps', type=int, help='training steps to time; default 40, CPU 1')
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
    store = open_store(StoreRequest((SourceSpec(bags, kind='bag'),), manifest), cache, 2)
    opened_s = time.perf_counter() - begin_s
    index = WindowIndex(store.lengths, 8, 10)
    gather(store, index, np.random.default_rng(0).integers(0, len(index), BATCH), manifest)
    print(opened_s, time.perf_counter() - begin_s)
    return 0


class Epoch(NamedTuple):
    """
    One pass over all windows.

    :param rate: windows a second.
    :param memory_mb: own memory of all processes in each of the PARTS of the epoch: the least of
        several looks, when the fewest batches were on their way.
    """

    rate: float
    memory_mb: list[float]

    @property
    def growth_mb(self) -> float:
        """Return how far the last quarter of the epoch lies above the second: no warm-up."""
        quarter = PARTS // 4
        return min(self.memory_mb[-quarter:]) - min(self.memory_mb[quarter:2 * quarter])

    @property
    def is_flat(self) -> bool:
        """Say whether that is less than one hundredth, or than one batch."""
        return self.growth_mb < max(0.01 * min(self.memory_mb), BATCH_MB)


def _throughput(options: argparse.Namespace, folder: Path) -> int:
    import torch
    torch.set_float32_matmul_precision('high')  # as `train`
    store = _write_store(folder / 'store', options.episodes)
    size_gb = sum(path.stat().st_size for path in store.iterdir()) / 1e9
    kinds = ['disk', 'memory'] + (['device'] if options.device != 'cpu' else [])
    epochs, fed, module = {}, {}, None
    for kind in kinds:
        module = _module(store, kind, options, folder)
        epochs[kind] = _epoch(module, options)
        stepper = _Stepper(module, options)
        fed[kind] = stepper.rate(_batches(module, options.device))
    assert module is not None
    step = stepper.rate(itertools.repeat(next(_batches(module, options.device))))
    name = 'the CPU' if options.device == 'cpu' else torch.cuda.get_device_name()
    print(f'\none epoch of {len(module.data.split.train)} windows, each once, from '
          f'{size_gb:.2f} GB of frames by {options.workers} workers; one training step of the '
          f'compact policy on {name}: {1e3 * BATCH / step:.1f} ms, {step:.0f} windows/s')
    _print_rates(epochs, fed, step)
    return _print_memory(epochs) or int(max(e.rate for e in epochs.values()) < 2 * step)


def _print_rates(epochs: Mapping[str, Epoch], fed: Mapping[str, float], step: float) -> None:
    print(f'{"frames on":10}{"loader [windows/s]":>20}{"against the step":>18}'
          f'{"steps fed by it [windows/s]":>30}')
    for kind, epoch in epochs.items():
        enough = 'enough' if epoch.rate >= 2 * step else 'NOT twice'
        print(f'{kind:10}{epoch.rate:20.0f}{epoch.rate / step:17.1f}x{fed[kind]:29.0f}  '
              f'({fed[kind] / step:.0%}), {enough}')


def _print_memory(epochs: Mapping[str, Epoch]) -> int:
    """Print the memory at each point, and whether it is flat; return 0 where all of it is."""
    print('own memory of all processes together [MB], in each part of the epoch\n'
          + f'{"frames on":10}' + ''.join(f'{100 * (n + 1) // PARTS:7}%' for n in range(PARTS)))
    for kind, epoch in epochs.items():
        print(f'{kind:10}' + ''.join(f'{value:8.0f}' for value in epoch.memory_mb)
              + f'   last quarter against the second {epoch.growth_mb:+.1f} MB: '
              + ('flat' if epoch.is_flat else 'NOT flat'))
    return int(not all(epoch.is_flat for epoch in epochs.values()))


def _write_store(path: Path, episodes: int) -> Path:
    from ros2_lstm_policy.data.store import StoreWriter
    from ros2_lstm_policy.types import Episode
    manifest, random = _manifest(), np.random.default_rng(0)
    writer = StoreWriter(path, manifest)
    for number in range(episodes):
        images = {c.name: np.frombuffer(random.bytes(STEPS * c.height * c.width * 3), np.uint8)
                  .reshape(STEPS, c.height, c.width, 3) for c in manifest.cameras}
        writer.append(Episode(
            f'e{number}', f'task {number % 20}', np.arange(STEPS) * 10**8, images,
            {'arm': random.normal(0, 0.01, (STEPS, 6)),
             'gripper': (np.arange(STEPS) % 2.0)[:, None]}))
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


def _batches(module: Any, device: str) -> Iterator[Any]:
    """Yield batches on the device, as Lightning does it."""
    import torch
    for batch in module.data.train_loader():
        moved = batch._replace(windows=batch.windows._replace(
            images={n: t.to(device, non_blocking=True) for n, t in batch.windows.images.items()},
            **{name: getattr(batch.windows, name).to(device, non_blocking=True)
               for name in ('continuous_BTKC', 'binary_BTKG', 'valid_BTK')}))
        yield module.data.on_device(moved, torch.device(device))


def _epoch(module: Any, options: argparse.Namespace) -> Epoch:
    """Take every window once and look at memory, then go on for the rate: looking takes time."""
    data = module.data
    count = len(data.split.train) // BATCH  # what is left is less than a batch
    ids = np.concatenate([data.order.batch(number)[0] for number in range(count)])
    assert len(np.unique(ids)) == len(ids) == count * BATCH
    batches = _batches(module, options.device)
    memory_mb = [float('inf')] * PARTS
    for number, _ in enumerate(itertools.islice(batches, count)):
        if number % max(1, count // LOOKS) == 0:
            part = number * PARTS // count
            memory_mb[part] = min(memory_mb[part], _own_memory_mb())
    waiting = (module.config.data.loader.workers + 1) * 2  # gathered while memory was looked at
    timed = itertools.islice(batches, waiting, waiting + count)
    next(timed)
    _synchronise(options.device)
    begin_s = time.perf_counter()
    for _ in timed:
        pass
    _synchronise(options.device)
    return Epoch((count - 1) * BATCH / (time.perf_counter() - begin_s), memory_mb)


class _Stepper:
    """Trains as `train` does."""

    def __init__(self, module: Any, options: argparse.Namespace) -> None:
        from ros2_lstm_policy.training import optimizer
        from ros2_lstm_policy.training.ema import WeightAverage
        self._module, self._device = module.to(options.device).train(), options.device
        self._steps = options.steps or (1 if options.device == 'cpu' else 40)
        self._warm_up = 0 if options.device == 'cpu' else 10
        self._trained = [p for p in module.objective.parameters() if p.requires_grad]
        self._optimizer = optimizer.create(module.objective, module.config.optimiser,
                                           fused=options.device != 'cpu')
        self._average = WeightAverage(self._trained, module.config.ema_decay)

    def rate(self, batches: Iterator[Any]) -> float:
        """Return the windows a second of training steps on these batches."""
        for _ in range(self._warm_up):
            self._step(next(batches))
        _synchronise(self._device)
        begin_s = time.perf_counter()
        for _ in range(self._steps):
            self._step(next(batches))
        _synchronise(self._device)
        return self._steps * BATCH / (time.perf_counter() - begin_s)

    def _step(self, batch: Any) -> None:
        from ros2_lstm_policy.training.objective import total
        import torch
        with torch.autocast(self._device, torch.bfloat16, enabled=self._device != 'cpu'):
            loss = total(self._module.losses(batch, self._module.config.augmentation).terms)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._trained, self._module.config.optimiser.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._average.update()


def _synchronise(device: str) -> None:
    import torch
    if device != 'cpu':
        torch.cuda.synchronize()


def _own_memory_mb() -> float:
    """Return the memory of this process and its workers, a page that they share counted once."""
    workers = [process.pid for process in multiprocessing.active_children()]
    return sum(_pages_kb(Path(f'/proc/{pid}')) for pid in (os.getpid(), *workers)) / 1e3


def _pages_kb(process: Path) -> int:
    """Return anonymous and shared memory, without mapped files; in proportion if it is known."""
    rollup, names = process / 'smaps_rollup', {'Pss_Anon', 'Pss_Shmem'}
    if not rollup.exists():
        rollup, names = process / 'status', {'RssAnon', 'RssShmem'}
    lines = (line.split() for line in rollup.read_text().splitlines())
    return sum(int(line[1]) for line in lines if line[0].rstrip(':') in names)


if __name__ == '__main__':
    sys.exit(main())
