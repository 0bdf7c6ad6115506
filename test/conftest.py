"""
What every test runs under: no network, one thread a process, a ROS domain of its own.

Set before anything is imported, and inherited by the processes that tests start.
"""

import os
import signal

os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
os.environ.setdefault('ROS_DOMAIN_ID', str(os.getpid() % 50 + 1))
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('MPLBACKEND', 'Agg')
os.environ['HF_HUB_OFFLINE'] = '1'
if not os.path.exists('/dev/nvidiactl'):  # else the kernels run where they belong
    os.environ['TRITON_INTERPRET'] = '1'

# Started in the background, a shell's child ignores SIGINT, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
