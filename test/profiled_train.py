"""The training command under PyTorch's profiler: which collectives a process took part in."""

from collections import Counter
import json
from pathlib import Path
import sys

from ros2_lstm_policy.training import cli
from torch import distributed, profiler


def main(counts: Path, arguments: list[str]) -> int:
    """Write how often each was issued, from the first process."""
    with profiler.profile(activities=[profiler.ProfilerActivity.CPU]) as seen:
        status = cli.main(arguments)
    names = Counter(event.name for event in seen.events() if event.name.startswith('c10d::'))
    if distributed.get_rank() == 0:
        counts.write_text(json.dumps(names))
    return status


if __name__ == '__main__':
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
