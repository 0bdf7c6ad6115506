"""
Damage inputs of every parser of outside data at random, and count what comes of it.

Each parser is a process of its own that is ended where it hangs or grows; a crash is counted and
the damage printed, so that it can be tried again. `python benchmarks/fuzz.py --seconds 600`;
the parsers and good inputs are those of test/fuzz_parsers.py.
"""

from __future__ import annotations

import argparse
from collections import Counter
from multiprocessing import get_context
import os
from pathlib import Path
import sys
import tempfile
import time
from typing import Any

import beside_tests  # noqa: F401 (where fuzz_parsers is)
import fuzz_parsers
import numpy as np

_BATCH_S = 5.0
_SHOWN = 3


def main() -> int:
    """Run; return 0 where every input was taken or refused as documented."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('--inputs', type=int, default=100_000, help='at most, for each parser')
    parser.add_argument('--seconds', type=float, default=60.0, help='at most, for each parser')
    parser.add_argument('--seed', type=int, default=0, help='of the damage')
    parser.add_argument('--only', nargs='*', help='names of parsers')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        names = options.only or list(fuzz_parsers.targets(Path(scratch)))
    print('| parser | inputs | taken | refused | faults | memory, largest growth |\n'
          '|---|---|---|---|---|---|')
    faults = 0
    for name in names:
        context = get_context('spawn')
        queue: Any = context.Queue()
        process = context.Process(target=work, args=(name, options, queue))
        process.start()
        counts, grown_mb = Counter(), 0.0
        while process.is_alive() or not queue.empty():
            try:
                counts, grown_mb = queue.get(timeout=1.0)
            except Exception:
                continue
        process.join()
        if process.exitcode:
            counts['faults'] += 1
            print(f'{name}: the process ended with {process.exitcode}', file=sys.stderr)
        faults += counts['faults']
        print(f'| {name} | {sum(counts.values()):,} | {counts["taken"]:,} | '
              f'{counts["refused"]:,} | {counts["faults"]} | {grown_mb:.0f} MB |', flush=True)
    return 1 if faults else 0


def work(name: str, options: argparse.Namespace, queue: Any) -> None:
    """Try inputs of one parser, and tell the counts every few seconds."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # OpenCV says much about damaged images
    with tempfile.TemporaryDirectory() as scratch:
        target = fuzz_parsers.targets(Path(scratch))[name]
        random, counts = np.random.default_rng(options.seed), Counter()
        for number in range(len(target.corpus)):
            fuzz_parsers.attempt(target, number, [])  # imports and caches are the base
        base_mb, grown_mb = _peak_mb(), 0.0
        end_s, told_s = time.monotonic() + options.seconds, time.monotonic()
        while sum(counts.values()) < options.inputs and time.monotonic() < end_s:
            number = int(random.integers(len(target.corpus)))
            operations = [tuple(map(int, random.integers(0, 2**32, 3)))
                          for _ in range(random.integers(1, 5))]
            try:
                taken = fuzz_parsers.attempt(target, number, operations)
                counts['taken' if taken else 'refused'] += 1
            except BaseException as error:
                counts['faults'] += 1
                if counts['faults'] <= _SHOWN:
                    print(f'{name}: {type(error).__name__}: {str(error)[:200]}: input {number}, '
                          f'{operations}', flush=True)
            if time.monotonic() - told_s > _BATCH_S:
                told_s, grown_mb = time.monotonic(), _peak_mb() - base_mb
                queue.put((counts, grown_mb))
        queue.put((counts, _peak_mb() - base_mb))


def _peak_mb() -> float:
    """Return the most memory that the process has had."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return int(next(line for line in lines if line.startswith('VmHWM')).split()[1]) / 1024


if __name__ == '__main__':
    sys.exit(main())
