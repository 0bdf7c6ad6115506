"""Build and install the package; colcon calls it."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = 'ros2_lstm_policy'


def installed(*folders: str) -> list[tuple[str, list[str]]]:
    """Return every file under the folders with its place in the share directory."""
    files = sorted(path for folder in folders for path in Path(folder).rglob('*')
                   if path.is_file() and '__pycache__' not in path.parts)
    return [(f'share/{PACKAGE}/{path.parent}', [str(path)]) for path in files]


setup(
    name=PACKAGE,
    version='0.1.0',
    description='A recurrent vision-language-action policy for ROS 2 robots',
    license='Apache-2.0',
    maintainer='maintainers',
    maintainer_email='maintainers@users.noreply.r-seed-fd6ce1c2.example',
    python_requires='>=3.11',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (f'share/{PACKAGE}', ['package.xml', 'LICENSE']),
        *installed('launch', 'config', 'checkpoints'),
    ],
    install_requires=['setuptools'],
    extras_require={'test': ['pytest']},
    zip_safe=True,
    entry_points={
        'console_scripts': [
            'policy_node = ros2_lstm_policy.ros.policy.node:main',
            'sim_robot_node = ros2_lstm_policy.ros.sim.node:main',
            'recorder_node = ros2_lstm_policy.ros.recorder.node:main',
            'demo = ros2_lstm_policy.ros.closed_loop.demo:main',
            'doctor = ros2_lstm_policy.ros.doctor.main:main',
            'train = ros2_lstm_policy.training.cli:main',
            'curves = ros2_lstm_policy.training.curves:main',
            'dataset = ros2_lstm_policy.data.dataset:main',
            'collect = ros2_lstm_policy.sim.collect:main',
            'dagger = ros2_lstm_policy.sim.dagger:main',
            'evaluate = ros2_lstm_policy.evaluation.evaluate:main',
            'benchmark = ros2_lstm_policy.evaluation.benchmark:main',
            'compare = ros2_lstm_policy.evaluation.compare:main',
            'evaluate_nodes = ros2_lstm_policy.ros.closed_loop.evaluate_nodes:main',
            'import_robovlms = ros2_lstm_policy.robovlms.cli:main',
            'serve = ros2_lstm_policy.serving.serve:main',
            'init_checkpoint = ros2_lstm_policy.model.init_checkpoint:main',
        ],
    },
)
