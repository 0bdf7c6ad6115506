"""A state that is carried through whole episodes: the same in lanes, in one pass and in acting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from ros2_lstm_policy import transforms
from ros2_lstm_policy.config import ConfigError
from ros2_lstm_policy.data.lanes import Lanes, one_pass
from ros2_lstm_policy.data.sampler import BatchOrder, Share, Stream
from ros2_lstm_policy.data.windows import WindowIndex
from ros2_lstm_policy.runtime.actor import PolicyActor
from ros2_lstm_policy.training import dry_run, run
from ros2_lstm_policy.training.callbacks import LAST, STATE
from ros2_lstm_policy.training.carried import CarriedState
from ros2_lstm_policy.types import ActionChunk, Observation
import torch
from torch import Tensor
from training_data import configured, values, write_store

CARRY = ('policy.decoder.history=carry', 'recurrence.segment=4')
STILL = ('augmentation={static_shift: 0, hand_shift: 0}', 'policy.backbone.options.dropout=0.0')


@pytest.fixture(scope='module')
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store whose episodes are no multiple of a segment."""
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp('carried') / 'store'
    write_store(path, episodes=6, steps=10)
    return path


def assembled(store: Path, *overrides: str) -> run.TrainingModule:
    """Return an assembled run that carries."""
    chosen = configured(values(store.parent / 'run', store), *CARRY, *overrides)
    return run.assemble(chosen, tell=lambda line: None)


def make_lanes(lengths: Sequence[int], lanes: int, segment: int = 4) -> tuple[WindowIndex, Lanes]:
    """Return all episodes of these lengths in lanes."""
    index = WindowIndex(tuple(lengths), segment, 2, segment)
    episodes = np.arange(len(lengths))
    return index, Lanes(index, episodes, Stream(len(lengths), 7), lanes)


def reads(index: WindowIndex, lanes: Lanes, lane: int, of: int, batches: int,
          ) -> Iterator[tuple[int, list[int]]]:
    """Yield what a lane reads: an episode, and the segments of it in their order."""
    ids = lanes.take(0, of * batches).reshape(batches, of)[:, lane]
    starts = np.flatnonzero(index.begins(ids))
    for begin, end in zip(starts, [*starts[1:], batches]):
        episode, = np.unique(index.episodes(ids[begin:end]))
        yield int(episode), (ids[begin:end] - index.first_windows()[episode]).tolist()


def test_segments_hold_every_step_of_an_episode_once() -> None:
    """They are windows that do not overlap; the last one is padded and no loss sees that."""
    index = WindowIndex((10, 4, 1), window=4, chunk=2, stride=4)
    assert index.counts.tolist() == [3, 1, 1]
    ids = np.arange(len(index))
    valid = index.actions(ids)[1][..., 0]
    assert index.frames(ids)[valid].tolist() == list(range(15))
    assert index.begins(ids).tolist() == [True, False, False, True, True]


def test_every_lane_reads_whole_episodes_in_order_and_is_never_empty() -> None:
    """A state is handed on only to the segment that follows; all but the first go to the end."""
    lengths, of = (5, 17, 3, 30, 8, 12), 3
    index, lanes = make_lanes(lengths, of)
    for lane in range(of):
        whole = list(reads(index, lanes, lane, of, 60))
        for place, (episode, segments) in enumerate(whole):
            assert segments == list(range(len(segments)))
            if 0 < place < len(whole) - 1:
                assert len(segments) == index.counts[episode]


def test_lanes_of_equal_episodes_are_not_in_step() -> None:
    """Else every batch would be all beginnings, or all ends."""
    index, lanes = make_lanes([40] * 12, lanes=10)
    begun = index.begins(lanes.take(0, 10 * 50)).reshape(50, 10)
    assert begun[0].all()
    assert begun[1:].sum(1).max() <= 2


def test_a_pass_over_the_data_reads_every_episode_once() -> None:
    """By the stream that windows are drawn by, and in long and short ones alike."""
    lengths = (5, 17, 3, 30, 8, 12, 9, 21)
    index, lanes = make_lanes(lengths, lanes=2)
    begun = [lanes.take(0, 200)[place] for place in range(200)
             if index.begins(lanes.take(place, 1))[0]]
    read = index.episodes(np.array(begun)).tolist()
    for first in range(0, 3 * len(lengths), len(lengths)):
        assert sorted(read[first:first + len(lengths)]) == list(range(len(lengths)))


def test_a_batch_of_lanes_depends_on_its_number_alone() -> None:
    """So a resumed run, a worker and any of several processes find the same one."""
    lengths = (5, 17, 3, 30, 8, 12)
    _, lanes = make_lanes(lengths, 6)
    alone = BatchOrder(np.arange(999), lanes, 6, Share())
    wanted = [alone.batch(number)[0] for number in range(40)]
    late = make_lanes(lengths, 6)[1]
    for number in (37, 5, 39):
        found = [BatchOrder(np.arange(999), late, 2, Share(rank, 3)).batch(number)[0]
                 for rank in range(3)]
        assert np.concatenate(found).tolist() == wanted[number].tolist()


def test_one_pass_keeps_every_episode_in_its_row() -> None:
    """Rows that have ended are the last, so that the state of the others stays where it is."""
    index, _ = make_lanes((5, 17, 3, 30, 8, 12), 1)
    batches = one_pass(index, [0, 1, 3, 4], most_lanes=2)
    everything = np.arange(len(index))
    wanted = everything[np.isin(index.episodes(everything), [0, 1, 3, 4])]
    assert sorted(np.concatenate(batches)) == wanted.tolist()
    for before, after in pairwise(batches):
        assert len(after) <= len(before)
        goes_on = ~index.begins(after)
        assert (after[goes_on] == before[:len(after)][goes_on] + 1).all()


def predicted(module: run.TrainingModule, ids: Sequence[np.ndarray]) -> ActionChunk:
    """Return what training predicts at the valid steps of these batches, row by row."""
    chunks: list[ActionChunk] = []
    decoder, unroll = module.objective.policy.decoder, module.objective.policy.decoder.unroll

    def listening(tokens: Tensor, state: object = None) -> object:
        found = unroll(tokens, state)
        chunks.append(found[0])
        return found
    decoder.unroll = listening
    carried, valid = CarriedState(), []
    for some in ids:
        batch = module.data.train_loader().dataset[some, np.empty(0, np.int64)]
        module._going_on(batch, None, carried)
        valid.append(batch.windows.valid_BTK[..., 0])
    decoder.unroll = unroll
    return ActionChunk(*(torch.cat([chunk[i][row:row + 1][mask[row:row + 1]]
                                    for chunk, mask in zip(chunks, valid)
                                    for row in range(len(mask))]) for i in range(2)))


@torch.no_grad()
def test_lanes_equal_one_pass_over_an_episode_and_acting_step_by_step(tmp_path: Path) -> None:
    """
    Over a minute at 10 Hz, 600 steps, carry means the same in training and acting.

    Training used to begin every window at zero, so a policy that was told to carry acted on a
    state such as it had never been trained on.
    """
    steps = 600
    episodes = write_store(tmp_path / 'store', episodes=2, steps=steps, reach=1.0)
    module = assembled(tmp_path / 'store', *STILL, 'recurrence.segment=32').eval()
    policy = module.objective.policy
    for parameter in policy.decoder.rnn.parameters():
        parameter.mul_(3)  # so that what was seen long ago matters
    index = module.data.index
    lanes = predicted(module, [np.array([i]) for i in range(index.counts[0])])
    whole = assembled(tmp_path / 'store', *STILL, f'recurrence.segment={steps}').eval()
    whole.objective.load_state_dict(module.objective.state_dict())
    once = predicted(whole, [np.array([0])])
    assert all((a - b).abs().max() <= 1e-6 for a, b in zip(lanes, once))
    actor = PolicyActor(policy, prepare=False)
    wanted = transforms.from_labels(lanes[0].numpy(), lanes[1].sigmoid().numpy(), policy.manifest)
    furthest = 0.0
    for step in range(steps):
        images = {name: episodes.images[name][step] for name in episodes.images}
        chunk = actor.act(Observation(step, images), episodes.episodes[0].instruction).chunk
        furthest = max(furthest, float(np.abs(chunk - wanted[step]).max()))
    assert furthest <= 1e-6
    fresh = predicted(module, [np.array([5])])
    assert (fresh[0][0] - lanes[0][5 * 32]).abs().max() > 1e-3


def kept(path: Path) -> dict:
    """Return what a run kept beside Lightning's own state."""
    state = torch.load(path / STATE, weights_only=True)
    return next(v for k, v in state['callbacks'].items() if 'Keeper' in k) | {
        'weights': state['state_dict']}


def test_a_killed_and_resumed_run_goes_on_with_every_lanes_state(store: Path, tmp_path: Path,
                                                                 ) -> None:
    """What the lanes know belongs to the run; without it the first segments would begin empty."""
    settings = (*CARRY, 'recurrence.state_dropout=0.2', 'losses.fwd_loss_ratio=0.1',
                'losses.latent={}')
    run.fit(configured(values(tmp_path / 'one', store, 4), *settings))
    run.fit(configured(values(tmp_path / 'two', store, 2), *settings))
    run.fit(configured(values(tmp_path / 'two', store, 4), *settings), resume=True)
    one, two = kept(tmp_path / 'one'), kept(tmp_path / 'two')
    assert all(value.equal(two['weights'][name]) for name, value in one['weights'].items())
    assert one['lanes']['key'] == two['lanes']['key']
    assert one['lanes']['rows'].keys() == two['lanes']['rows'].keys() > {'h', 'c'}
    for name, rows in one['lanes']['rows'].items():
        assert rows.equal(two['lanes']['rows'][name]), name
        assert len(rows) == 2
    assert one['lanes']['rows']['h'].abs().max() > 0


def test_a_run_that_goes_on_with_other_lanes_begins_their_episodes(store: Path, tmp_path: Path,
                                                                   ) -> None:
    """A state that was left in the middle of one episode is no beginning for another one."""
    run.fit(configured(values(tmp_path, store, 2), *CARRY))
    run.fit(configured(values(tmp_path, store, 3), *CARRY, 'data.loader.batch_size=3'),
            resume=True)
    lanes = kept(tmp_path)['lanes']
    assert lanes['origin'] == 4
    assert len(lanes['rows']['h']) == 3


@pytest.mark.parametrize('overrides', [
    ('data.loader.resident=device',),
    ('data.loader.resident=device', 'data.loader.cached_features=2'),
    ('data.loader.workers=1',)])
def test_wherever_frames_and_features_lie_lanes_have_the_same_losses(
        store: Path, overrides: tuple[str, ...]) -> None:
    """One gather rule, for segments too."""
    found = []
    for extra in ((), overrides):
        module, carried = assembled(store, *STILL, *extra), CarriedState()
        loader = iter(module.data.train_loader())
        with torch.no_grad():
            for _ in range(4):
                batch = module.data.on_device(next(loader), torch.device('cpu'))
                outcome = module._going_on(batch, module.config.augmentation, carried)
        found.append({name: float(term.value) for name, term in outcome.terms.items()})
    assert found[0] == pytest.approx(found[1], rel=1e-5, abs=1e-6)


@torch.no_grad()
def test_validation_measures_whole_episodes(store: Path) -> None:
    """Each step with all that came before it: the mean is that of one pass over the episode."""
    module = assembled(store, *STILL, 'validation.batch_size=2').eval()
    whole = assembled(store, *STILL, 'recurrence.segment=10').eval()
    whole.objective.load_state_dict(module.objective.state_dict())
    for each in (module, whole):
        for number, batch in enumerate(each.data.validation_loader()):
            each.validation_step(batch, number)
    assert module._measures.finish() == pytest.approx(whole._measures.finish(), rel=1e-5)


def test_every_process_has_something_to_validate_on(store: Path) -> None:
    """
    Held-out episodes are read whole, and there may be fewer of them than processes.

    A process without any ended the run; now all measure all, and the means are the same.
    """
    config = configured(values(store.parent / 'run', store), *CARRY)
    alone = run.assemble(config, tell=lambda line: None).data
    assert alone.split.held_out == 1
    for rank in range(2):
        data = run.assemble(config, Share(rank, 2), tell=lambda line: None).data
        found = [batch.windows.episode_names for batch in data.validation_loader()]
        assert found == [batch.windows.episode_names for batch in alone.validation_loader()]


def test_a_long_episode_takes_no_more_memory_than_its_segment(store: Path, tmp_path: Path,
                                                              ) -> None:
    """What the backward pass keeps is bounded by `recurrence.segment`, not by the recording."""
    write_store(tmp_path / 'long', episodes=2, steps=300)
    assert (dry_run.estimate_memory(assembled(store)).activations
            == dry_run.estimate_memory(assembled(tmp_path / 'long')).activations)


def test_no_gradient_and_no_other_episode_passes_between_segments() -> None:
    """The state is detached, empty where an episode begins, and emptied at times if wanted."""
    carried, state = CarriedState(), (torch.ones(1, 3, 2, requires_grad=True), torch.ones(1, 3, 2))
    assert carried.before(torch.tensor([True] * 3)) is None
    carried.keep(state)
    h, c = carried.before(torch.tensor([False, True]))
    assert not h.requires_grad
    assert h[0, :, 0].tolist() == c[0, :, 1].tolist() == [1, 0]
    dropping = CarriedState(dropout=0.5)
    dropping.keep((torch.ones(1, 1000, 2), torch.ones(1, 1000, 2)))
    h, c = dropping.before(torch.zeros(1000, dtype=torch.bool))
    assert 400 < h[0, :, 0].sum() < 600
    assert h.equal(c)


@pytest.mark.parametrize('overrides', [
    (), ('data.loader.resident=device', 'data.loader.cached_features=3')])
def test_an_episodes_picture_does_not_jump_between_its_segments(
        store: Path, overrides: tuple[str, ...]) -> None:
    """A robot's camera does not move every few steps, so neither does what training shows."""
    effects = ', '.join(f'{name}: 0.2' for name in ('static_shift', 'hand_shift', 'crop', 'tint',
                                                    'brightness', 'contrast', 'exposure'))
    module = assembled(store, *overrides, f'augmentation={{{effects}, jpeg: 50}}')
    numbers = torch.zeros(8, 1, dtype=torch.long)  # the same frame in all rows and batches
    images = dict.fromkeys(module.data.store.images, numbers)
    if not overrides:
        images = {name: module.data.store.take(name, numbers.numpy()) for name in images}
    carried, batches = CarriedState(), []
    for begins in ([True] * 8, [False] * 4 + [True] * 4):
        hold = carried.holding(torch.tensor(begins))
        seen = module._images(images, module.config.augmentation, hold)
        picture = seen.levels[0][0] if overrides else seen['static']
        batches.append(picture.flatten(1))
    assert batches[0][:4].equal(batches[1][:4])
    assert not batches[0][4:].equal(batches[1][4:])
    assert len(batches[0].unique(dim=0)) > 1


def test_settings_of_lanes_are_refused_where_windows_are_trained(store: Path) -> None:
    """They would have no effect, and nobody would know."""
    with pytest.raises(ConfigError, match='recurrence: policy.decoder.history is window'):
        configured(values(store, store), 'recurrence.segment=16')
    with pytest.raises(ConfigError, match='segment must be from 1'):
        configured(values(store, store), 'policy.decoder.history=carry', 'recurrence.segment=0')


@pytest.mark.parametrize(('before', 'after'), [('window', 'carry'), ('carry', 'window')])
def test_a_start_from_another_history_is_said(store: Path, tmp_path: Path, before: str,
                                              after: str) -> None:
    """The weights fit, but what they make of the past is to be learned anew."""
    said: list[str] = []
    run.fit(configured(values(tmp_path, store, 1), f'policy.decoder.history={before}'))
    run.assemble(configured(values(tmp_path / 'next', store, 1), f'init_from={tmp_path / LAST}',
                            f'policy.decoder.history={after}'), tell=said.append)
    assert any(f'learned with history {before} and goes on with {after}' in line for line in said)
