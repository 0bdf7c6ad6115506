"""Cached features, augmentation, the schedule and tuning: small promises of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from ros2_lstm_policy.data.repeats import distinct
from ros2_lstm_policy.data.store import StoreWriter
from ros2_lstm_policy.training import run, tuning
from ros2_lstm_policy.training.augmentation import augment, AugmentationConfig
from ros2_lstm_policy.training.ema import WeightAverage
from ros2_lstm_policy.training.objective import Maps, Tokens
from ros2_lstm_policy.training.schedule import Schedule, ScheduleConfig
from ros2_lstm_policy.transforms import normalise_images
from ros2_lstm_policy.types import Episode
import torch
from torch import nn
from training_data import cameras, configured, manifest, values, write_store

STILL = ('augmentation={static_shift: 0, hand_shift: 0}',)
ON_DEVICE = ('data.loader.resident=device',)


@pytest.fixture(scope='module')
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with episodes of two lengths."""
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp('features') / 'store'
    write_store(path, episodes=6, steps=6)
    return path


def assembled(store: Path, *overrides: str) -> run.TrainingModule:
    """Return an assembled run without dropout."""
    chosen = configured(values(store.parent / 'run', store), *overrides,
                        'policy.backbone.options.dropout=0.0')
    return run.assemble(chosen, tell=lambda line: None)


def first_losses(module: run.TrainingModule) -> dict[str, torch.Tensor]:
    """Return the losses of the first batch, as training sees it."""
    batch = module.data.train_loader().dataset[module.data.order.batch(0)]
    batch = module.data.on_device(batch, torch.device('cpu'))
    outcome = module.losses(batch, module.config.augmentation)
    return {name: term.value.detach() for name, term in outcome.terms.items()}


def maps_of(module: run.TrainingModule, numbers: Mapping[str, torch.Tensor],
            augmented: bool) -> torch.Tensor:
    """Return the first map of the first camera."""
    found = module._images(numbers, module.config.augmentation if augmented else None)
    assert isinstance(found, Maps)
    return found.levels[0][0]


@pytest.mark.parametrize('overrides', [
    ('data.loader.resident=device',), ('data.loader.resident=disk',),
    ('data.loader.resident=device', 'data.loader.cached_features=2')])
def test_wherever_frames_and_features_lie_the_losses_are_the_same(
        store: Path, overrides: tuple[str, ...]) -> None:
    """One gather rule for frames on disk, in memory and on the device, and for cached features."""
    wanted = first_losses(assembled(store, *STILL))
    found = first_losses(assembled(store, *STILL, *overrides))
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('film', ['true', 'false'])
def test_tokens_of_a_frozen_backbone_are_what_it_sees_under_each_episodes_words(
        store: Path, film: str) -> None:
    """Also where the words modulate the image network; validation knows no other words."""
    frozen = (*STILL, f'policy.backbone.options.film={film}', 'tune.freeze=["backbone*"]')
    wanted = first_losses(assembled(store, *frozen))
    module = assembled(store, *frozen, *ON_DEVICE, 'data.loader.cached_features=1')
    found = first_losses(module)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    assert isinstance(module._images(module.data.on_device(
        module.data.train_loader().dataset[module.data.order.batch(0)],
        torch.device('cpu')).windows.images, None), Tokens)


def test_a_run_on_cached_tokens_trains_and_validates(store: Path, tmp_path: Path) -> None:
    """Without a swap ratio: what is kept holds under an episode's own words alone."""
    chosen = configured(values(tmp_path / 'run', store), *ON_DEVICE, 'tune.freeze=["backbone*"]',
                        'data.loader.cached_features=1')
    run.fit(chosen)
    rows = (tmp_path / 'run' / 'logs' / 'part_0' / 'metrics.csv').read_text()
    assert 'val_arm' in rows and 'swap' not in rows


def test_what_is_seen_again_is_encoded_once_with_the_same_losses(tmp_path: Path) -> None:
    """A robot that waits: three of four frames are the frame before."""
    torch.set_num_threads(1)
    with StoreWriter(tmp_path / 'store', manifest(32)) as writer:
        for number in range(4):
            steps = np.random.default_rng(number).integers(0, 256, (3, 32, 32, 3), np.uint8)
            images = dict.fromkeys(('static', 'hand'), np.repeat(steps, 4, 0))
            writer.append(Episode(f'{number}', 'go left', np.arange(12, dtype=np.int64), images,
                                  {'arm': np.zeros((12, 6)), 'gripper': np.zeros((12, 1))}))
        writer.close()
    module = assembled(tmp_path / 'store', *STILL, 'policy.decoder.window_size=8')
    ids = module.data.split.train[:2]
    batch = module.data.train_loader().dataset[(ids, np.empty(0, int))]
    seen = distinct([module.data.store.numbers('static', module.data.index.frames(ids))])
    assert seen is not None and len(seen.first_U) < 8
    once, each = (module.losses(batch._replace(distinct=which), None) for which in (seen, None))
    for name, term in once.terms.items():
        torch.testing.assert_close(term.value, each.terms[name].value, rtol=1e-5, atol=1e-6)


def test_a_worker_gathers_what_the_process_itself_gathers(store: Path) -> None:
    """The batches depend on their number alone, so they may be made anywhere."""
    batches = [next(iter(assembled(store, f'data.loader.workers={workers}').data.train_loader()))
               for workers in (0, 1)]
    for name, images in batches[0].windows.images.items():
        assert images.equal(batches[1].windows.images[name])
    assert batches[0].windows.continuous_BTKC.equal(batches[1].windows.continuous_BTKC)
    assert batches[0].windows.episode_names == batches[1].windows.episode_names


def test_cached_copies_are_augmented_alike_over_a_window(store: Path) -> None:
    """Every augmented copy of an episode is one draw; validation sees the plain one."""
    module = assembled(store, *ON_DEVICE, 'data.loader.cached_features=3',
                       'augmentation={brightness: 0.5}')
    ids = module.data.split.train[:2]
    numbers = module.data.train_loader().dataset[(ids, np.empty(0, int))].windows.images
    seen = [maps_of(module, numbers, True) for _ in range(8)]
    plain = maps_of(module, numbers, False)
    assert any(not a.equal(seen[0]) for a in seen[1:])
    assert all(not a.equal(plain) for a in seen)
    assert plain.equal(maps_of(module, numbers, False))


@pytest.mark.parametrize('overrides', [(), (*ON_DEVICE, 'data.loader.cached_features=2')])
def test_a_run_trains_on_what_cameras_do_and_draws_the_same_again(
        store: Path, overrides: tuple[str, ...]) -> None:
    """From the configuration to the losses, on frames and on cached features."""
    effects = ('augmentation={static_shift: 0, hand_shift: 0, noise: 20, blur: 2, jpeg: 10, '
               'exposure: 1, white_balance: 0.2}',)
    found = []
    for augmentation in (effects, effects, STILL):
        module = assembled(store, *augmentation, *overrides)
        torch.manual_seed(0)
        found.append(first_losses(module))
    changed, again, plain = found
    for name, value in changed.items():
        assert torch.isfinite(value) and value.equal(again[name])
    assert any(not changed[name].equal(value) for name, value in plain.items())


@pytest.mark.parametrize('overrides', [
    ('policy.backbone.options.film=true',), ('policy.backbone.options.tune_vision=true',),
    ('losses.caption=true',)])
def test_features_that_change_are_not_cached(store: Path, overrides: tuple[str, ...]) -> None:
    """What depends on words or on trained weights cannot be kept."""
    with pytest.raises(ValueError, match='cached_features'):
        assembled(store, *ON_DEVICE, 'data.loader.cached_features=1', *overrides)


def test_augmentation_is_one_draw_for_all_steps_of_a_window() -> None:
    """What moves in a window is the robot, not the picture."""
    camera = cameras(16)[0]
    image = torch.randint(0, 256, (4, 1, 16, 16, 3), dtype=torch.uint8).expand(-1, 3, -1, -1, -1)
    config = AugmentationConfig(0.2, 0.2, 0.2, 0.2, 0.2, 0.2)
    torch.manual_seed(0)
    seen = augment(image, camera, config)
    assert seen.shape == (4, 3, 3, 16, 16)
    for step in (1, 2):
        torch.testing.assert_close(seen[:, step], seen[:, 0])
    assert not torch.allclose(seen[0], normalise_images(image[0], camera))


def test_no_augmentation_is_exactly_the_robots_preprocessing() -> None:
    """With every range at 0, training sees what the robot sees."""
    camera = cameras(16)[0]
    image = torch.randint(0, 256, (2, 3, 16, 16, 3), dtype=torch.uint8)
    assert augment(image, camera, AugmentationConfig(0, 0)).equal(normalise_images(image, camera))


def test_a_shift_moves_whole_pixels_and_repeats_the_border() -> None:
    """A shifted image holds only values of the image."""
    camera = cameras(8)[0]
    image = torch.arange(8, dtype=torch.uint8)[None, None, None, :, None].expand(6, 1, 8, 8, 3)
    torch.manual_seed(0)
    seen = augment(image, camera, AugmentationConfig(0.25, 0))
    row = (seen[:, 0, 0, 0] * 128 + 127).round().int()
    for found in row:
        shift = int(found[4]) - 4
        assert found.tolist() == [min(max(column + shift, 0), 7) for column in range(8)]
    assert len({int(found[4]) for found in row}) > 1


@pytest.mark.parametrize(('kind', 'middle', 'end'), [
    ('constant', 1.0, 1.0), ('half-cosine', 0.55, 0.1), ('cosine', 0.55, 0.1)])
def test_the_rate_warms_up_and_falls_as_its_kind_says(kind: str, middle: float,
                                                      end: float) -> None:
    """From the warm-up to `min_lr_scale`; 'cosine' changes once a pass of 10 steps."""
    schedule = Schedule(ScheduleConfig(kind, 5, 0.0, 0.1, max_steps=100), 10.0)  # type: ignore
    assert schedule.scale(0, 0) == pytest.approx(1 / 6)
    assert schedule.scale(50, 0) == pytest.approx(middle)
    assert schedule.scale(100, 0) == pytest.approx(end)
    changes = [schedule.scale(step, 0) != schedule.scale(step + 1, 0) for step in range(20, 99)]
    assert sum(changes) == {'constant': 0, 'half-cosine': 79, 'cosine': 7}[kind]


def test_time_ends_a_run_at_its_lowest_rate() -> None:
    """Under a time limit the schedule follows the clock where that is ahead of the steps."""
    schedule = Schedule(ScheduleConfig('half-cosine', min_lr_scale=0.1, max_steps=10 ** 6,
                                       max_time_s=60), 10.0)
    assert schedule.progress(10, 30) == 0.5
    assert schedule.progress(10, 61) == 1.0
    assert schedule.scale(10, 60) == pytest.approx(0.1)


def test_the_average_is_swapped_in_and_out_exactly() -> None:
    """Validation measures the average; training goes on from the very same weights."""
    layer = nn.Linear(3, 3)
    average = WeightAverage(layer.parameters(), 0.9)
    with torch.no_grad():
        layer.weight.add_(1.0)
    average.update()
    live = layer.weight.detach().clone()
    average.swap()
    assert not layer.weight.equal(live)
    average.swap()
    assert layer.weight.equal(live)


def test_freezing_leaves_only_what_was_asked_for(store: Path) -> None:
    """The last layer only, and a pattern that stays."""
    policy = assembled(store, 'policy.backbone.options.layers=2').objective.policy
    tuning.apply(policy, tuning.TuneConfig(last_n_layers=1, freeze=('decoder.rnn*',)))
    trained = {name for name, p in policy.named_parameters() if p.requires_grad}
    assert not any(name.startswith(('backbone.fusion.0', 'decoder.rnn')) for name in trained)
    assert any(name.startswith('backbone.fusion.1') for name in trained)


def test_groups_have_their_own_rates(store: Path) -> None:
    """A group's rate is scaled; vectors are not decayed."""
    module = assembled(store, 'optimiser={lr: 0.1, weight_decay: 0.5, groups: '
                              '[{match: "*decoder*", lr_scale: 0.5}]}')
    groups = module.configure_optimizers().param_groups
    assert sorted({group['base_lr'] for group in groups}) == [0.05, 0.1]
    for group in groups:
        assert group['weight_decay'] == (0.5 if group['params'][0].ndim > 1 else 0.0)


def test_gradient_checkpointing_changes_no_gradient(store: Path) -> None:
    """Recomputing gives what keeping gave."""
    found = []
    for overrides in ((), ('engine.gradient_checkpointing=true',)):
        module = assembled(store, *STILL, *overrides, 'policy.backbone.options.tune_vision=true')
        batch = module.data.train_loader().dataset[module.data.order.batch(0)]
        module.losses(batch, None).terms['arm'].value.backward()
        found.append({name: p.grad for name, p in module.objective.named_parameters()
                      if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)
