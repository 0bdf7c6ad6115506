"""Episodes that a store holds and this policy cannot be trained on are named and left out."""

from pathlib import Path

from data_recordings import write_bag
import numpy as np
import pytest
from ros2_lstm_policy.data.store import FrameStore, StoreWriter
from ros2_lstm_policy.manifest import Normalisation, one_arm
from ros2_lstm_policy.training.run import assemble
from ros2_lstm_policy.types import Episode
import training_data

LONG = 'pick up the cube and then put it down again, ' * 8


def write_store(path: Path, changes: dict[int, dict]) -> FrameStore:
    """Write eight episodes, some of which are told something else or failed."""
    steps, size = 10, 32
    writer = StoreWriter(path, one_arm('base', 'rotation_vector', 0.1, Normalisation.unit(6),
                                       training_data.cameras(size)))
    rng = np.random.default_rng(0)
    for number in range(8):
        line = {'name': f'episode_{number}', 'instruction': f'go {"left" if number % 2 else "on"}',
                **changes.get(number, {})}
        source = line.pop('source', 0)
        images = {camera.name: rng.integers(0, 255, (steps, size, size, 3), np.uint8)
                  for camera in training_data.cameras(size)}
        # The arm of an episode is its number, so that statistics tell which were taken.
        arm = np.full((steps, 6), 0.01 * (number + 1), np.float32)
        gripper = (np.arange(steps) % 2)[:, None]
        writer.append(Episode(stamps_ns=np.arange(steps) * 100_000_000, frames=images,
                              actions={'arm': arm, 'gripper': gripper}, **line), source)
    return writer.close()


def assembled(tmp_path: Path, changes: dict[int, dict], *overrides: str):
    """Return the parts of a run over such a store, and what it said."""
    write_store(tmp_path / 'store', changes)
    said: list[str] = []
    values = training_data.values(tmp_path / 'run', tmp_path / 'store')
    return assemble(training_data.configured(values, *overrides), tell=said.append), said


def test_an_instruction_that_is_too_long_leaves_its_episode_out(tmp_path: Path) -> None:
    """One free-form annotation among hundreds must not stop the run; it is named."""
    module, said = assembled(tmp_path, {7: {'instruction': LONG}})
    assert [line for line in said if "'episode_7'" in line and '[instruction]' in line
            and 'policy.backbone.options.max_text_tokens' in line] == said
    data = module.data
    assert [episode.name for episode in data.episodes] == [f'episode_{n}' for n in range(7)]
    ids = np.concatenate([data.split.train, data.split.validation])
    assert set(data.index.episodes(ids)) == set(range(7))
    assert max(data.manifest.action('arm').largest) <= 0.07 + 1e-6
    batch = next(iter(data.validation_loader()))
    assert module.losses(data.on_device(batch, module.device), None).terms


def test_a_source_whose_every_instruction_is_too_long_stops_the_run(tmp_path: Path) -> None:
    """A mixture without it is not what was asked for."""
    with pytest.raises(ValueError, match=r'no episode is left to train on:\n.*\[instruction\]'):
        assembled(tmp_path, {number: {'instruction': LONG, 'source': 1} for number in (2, 5)})


def test_failures_are_counted_and_can_be_left_out_of_a_store(tmp_path: Path) -> None:
    """`train` says how many it trains on, and by which key it does not."""
    module, said = assembled(tmp_path, {3: {'success': False}, 4: {'success': True}})
    assert said == ['1 of 8 episodes are labelled as failures and trained on; '
                    'data.limits.failures=false leaves them out']
    assert len(module.data.episodes) == 8
    module, said = assembled(tmp_path / 'without', {3: {'success': False}},
                             'data.limits.failures=false')
    assert ['[failure]' in line for line in said] == [True]
    assert 'episode_3' not in [episode.name for episode in module.data.episodes]


def test_bags_with_a_long_instruction_are_trained_on_without_it(tmp_path: Path) -> None:
    """The same from recordings: the line names the source and the episode."""
    for number in range(4):
        write_bag(tmp_path / 'bags' / f'run{number}', words=LONG if number == 2 else 'pick it up')
    values = training_data.values(tmp_path / 'run', tmp_path / 'store')
    values['data'] = {'sources': [{'path': str(tmp_path / 'bags')}],
                      'cache': str(tmp_path / 'cache'),
                      'loader': {'batch_size': 2, 'workers': 0, 'validation_share': 0.2}}
    said: list[str] = []
    module = assemble(training_data.configured(values), tell=said.append)
    assert any(f"{tmp_path / 'bags'}: episode 'run2': [instruction]" in line for line in said)
    assert len(module.data.episodes) == 3


def test_a_long_text_of_a_pair_is_left_out(tmp_path: Path) -> None:
    """Captions of the web are free-form, too."""
    training_data.pairs(tmp_path / 'pairs')
    list_of_pairs = tmp_path / 'pairs' / 'metadata.jsonl'
    list_of_pairs.write_text(list_of_pairs.read_text().replace('number 1', LONG))
    module, said = assembled(tmp_path, {}, f'losses.cotrain={{path: {tmp_path / "pairs"}}}')
    assert ['1.png' in line for line in said] == [True]
    assert module.data.order is not None
