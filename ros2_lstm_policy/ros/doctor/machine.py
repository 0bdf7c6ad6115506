"""The machine that the nodes run on: DDS profile, shared memory, GPU, CPU, disk; no ROS."""

from __future__ import annotations

from collections.abc import Mapping
import os
from pathlib import Path
import shutil
from xml.etree import ElementTree

from ros2_lstm_policy.ros.doctor.findings import Finding
from ros2_lstm_policy.ros.nodes import DDS_PROFILE, DDS_PROFILE_VARIABLE, share_directory

FAST_DDS = 'rmw_fastrtps_cpp'
_DEFAULT_SEGMENT = 512 << 10  # bytes of shared memory, where no profile says more
_IMAGES_IN_FLIGHT = 4  # that a segment should hold
_MB = 1 << 20
_SLOW_CLOCK = 0.6  # of the greatest frequency


def dds(environment: Mapping[str, str], image_bytes: int,
        shared_memory: Path = Path('/dev/shm')) -> list[Finding]:
    """
    Hold the middleware's profile against the images.

    :param image_bytes: of the largest image that a camera sends.
    """
    rmw = environment.get('RMW_IMPLEMENTATION') or FAST_DDS
    if rmw != FAST_DDS:
        return [Finding('dds', f'{rmw}: its own settings say how images travel')]
    wanted = share_directory() / 'config' / DDS_PROFILE
    advice = f'export {DDS_PROFILE_VARIABLE}={wanted} in every process; the launch files do'
    given = environment.get(DDS_PROFILE_VARIABLE, '')
    if given and not Path(given).is_file():
        return [Finding('dds', f'{DDS_PROFILE_VARIABLE} is {given}, and there is no such file',
                        advice)]
    try:
        segment = _segment(Path(given)) if given else _DEFAULT_SEGMENT
    except (ElementTree.ParseError, ValueError) as error:
        return [Finding('dds', f'{given} is no profile of Fast DDS: {error}', advice)]
    what = f'{rmw}, {given or "no profile"}: {segment / _MB:.1f} MiB of shared memory'
    if segment < _IMAGES_IN_FLIGHT * image_bytes:
        return [Finding('dds', f'{what} for images of {image_bytes / _MB:.1f} MiB, of which it '
                        f'should hold {_IMAGES_IN_FLIGHT}: they would go over UDP, and a third '
                        'of them would be lost', advice)]
    found = [Finding('dds', what)]
    free = shutil.disk_usage(shared_memory).free if shared_memory.is_dir() else 0
    if free < segment:
        found.append(Finding('dds', f'{shared_memory} has {free / _MB:.0f} MiB free, a process '
                             f'takes {segment / _MB:.0f}', 'free or enlarge it (in a container: '
                             '--shm-size=1g), or end processes that were killed: fastdds shm '
                             'clean'))
    return found


def _segment(profile: Path) -> int:
    """Return the bytes of the shared memory that a profile's default participant uses."""
    sizes = [_DEFAULT_SEGMENT]
    for transport in ElementTree.parse(profile).getroot().iter():
        if transport.tag.rpartition('}')[2] != 'transport_descriptor':
            continue
        values = {part.tag.rpartition('}')[2]: (part.text or '').strip() for part in transport}
        if values.get('type') == 'SHM' and 'segment_size' in values:
            sizes.append(int(values['segment_size']))
    return sizes[-1]


def cpu(threads: int, processors: Path = Path('/sys/devices/system/cpu')) -> list[Finding]:
    """
    Look at the cores, and at how fast they may run.

    :param threads: that one operation of the policy uses.
    """
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    what = f'{cores} cores, load {load:.1f}, {threads} thread(s) an operation'
    found = [Finding('cpu', what, 'set threads to no more than the cores that are left beside '
                     'cameras and drivers' if threads > cores else '')]
    slow = []
    for clock in sorted(processors.glob('cpu[0-9]*/cpufreq')):
        try:
            governor = (clock / 'scaling_governor').read_text().strip()
            now, most = (int((clock / name).read_text()) for name in
                         ('scaling_max_freq', 'cpuinfo_max_freq'))
        except (OSError, ValueError):
            continue
        if (governor == 'powersave' and not _is_intel_pstate(clock)) or now < _SLOW_CLOCK * most:
            slow.append(f'{clock.parent.name} ({governor}, at most {now / 1e6:.1f} of '
                        f'{most / 1e6:.1f} GHz)')
    if slow:
        found.append(Finding('cpu', f'{len(slow)} cores are kept slow: {slow[0]}',
                             'sudo cpupower frequency-set -g performance, and look at the power '
                             'mode of the machine'))
    return found


def _is_intel_pstate(clock: Path) -> bool:
    """Return whether `powersave` means the driver's usual way, which does speed up."""
    try:
        return (clock / 'scaling_driver').read_text().strip() in ('intel_pstate', 'amd-pstate-epp')
    except OSError:
        return False


def gpu(device: str, has_nvidia: bool = Path('/dev/nvidiactl').exists()) -> list[Finding]:
    """Look for the GPU that the policy is to run on, or for one that is left idle."""
    import torch
    if device.startswith('cuda'):
        try:
            torch.zeros(1, device=device)
            free, most = torch.cuda.mem_get_info(device)
        except (RuntimeError, AssertionError) as error:
            return [Finding('gpu', f'the device {device!r} cannot be used: '
                            f'{" ".join(str(error).split())[:160]}',
                            'nvidia-smi says whether there is one; torch must be built for it; '
                            'the device cpu does without')]
        return [Finding('gpu', f'{device}: {torch.cuda.get_device_name(device)}, '
                        f'{free / 2**30:.1f} of {most / 2**30:.1f} GiB free')]
    text = 'there is one, and the policy runs on the CPU' if has_nvidia else 'none is asked for'
    return [Finding('gpu', text)]


def disk(directory: Path, least_mb: float, bytes_s: float) -> list[Finding]:
    """
    Look at the room for recordings.

    :param least_mb: with less, the recorder ends its episode.
    :param bytes_s: that the cameras send.
    """
    where = directory.absolute()
    while not where.exists():
        where = where.parent
    if not where.is_dir() or not os.access(where, os.W_OK | os.X_OK):
        return [Finding('disk', f'{where} cannot be written to', 'choose another folder for the '
                        'recorder (doctor --recordings), or another owner of this one')]
    free = shutil.disk_usage(where).free
    left_s = max(0.0, free - least_mb * _MB) / max(bytes_s, 1.0)
    what = f'{free / 2**30:.1f} GiB free at {where}'
    if free < least_mb * _MB:
        return [Finding('disk', f'{what}: the recorder needs {least_mb:.0f} MiB (min_free_mb)',
                        'free some, or record elsewhere')]
    return [Finding('disk', what + (f', {left_s / 60:.0f} minutes of these cameras, raw'
                                    if bytes_s else ''))]
