"""A whole training run: from a configuration to checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
import logging
import os
from pathlib import Path
from typing import Any
import warnings

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy, FSDPStrategy
from ros2_lstm_policy import config as yaml_config
from ros2_lstm_policy.data.build import open_store, StoreRequest
from ros2_lstm_policy.data.datamodule import (DataModule, held_out, LoaderConfig, split_episodes,
                                              split_windows)
from ros2_lstm_policy.data.deciding import step_weights
from ros2_lstm_policy.data.image_text import PairSet
from ros2_lstm_policy.data.sampler import Share
from ros2_lstm_policy.data.store import FrameStore
from ros2_lstm_policy.data.usable import failures_said, unusable, used
from ros2_lstm_policy.data.windows import WindowIndex
from ros2_lstm_policy.manifest import Manifest
from ros2_lstm_policy.model import backbones
from ros2_lstm_policy.model.backbones.base import InstructionTooLong
from ros2_lstm_policy.model.lstm_decoder import keep_for
from ros2_lstm_policy.model.policy import Policy
from ros2_lstm_policy.training import dry_run, progress, state as run_state, tuning
from ros2_lstm_policy.training.callbacks import BEST, Keeper, LAST, STATE
from ros2_lstm_policy.training.config import TrainConfig
from ros2_lstm_policy.training.failures import does_not_fit
from ros2_lstm_policy.training.feature_cache import check_cacheable
from ros2_lstm_policy.training.module import TrainingModule
from ros2_lstm_policy.training.objective import Objective
from ros2_lstm_policy.training.schedule import Schedule
from ros2_lstm_policy.training.start import difference, initial_policy, weights_differ
import torch

USED_CONFIG, LOGS = 'train.yaml', 'logs'
_ALONE = Share()
_EXPECTED_WARNINGS = (
    '.*does not have many workers.*',  # one process that gathers batches is what was asked for
    r'.*isinstance\(treespec, LeafSpec\).*',  # of Lightning about torch; both are pinned
    '.*Checkpoint directory .* exists and is not empty.*')  # a run's parts share a directory
_FIXED = ('manifest', 'policy', 'losses', 'tune', 'ema_decay')  # what a resumed run keeps
_PRECISION: dict[str, Any] = {'fp32': '32-true', 'bf16': 'bf16-mixed', 'fp16': '16-mixed'}


def assemble(config: TrainConfig, share: Share = _ALONE,
             tell: Callable[[str], None] = print, resume: bool = False) -> TrainingModule:
    """
    Build everything of a run: the model first, so that a bad configuration reads no data.

    :param share: this process's part of every global batch.
    :param tell: takes lines for people.
    :param resume: compare the network with the state in `config.output`.
    :raises ValueError: for settings that do not fit together, or data that cannot be trained on.
    """
    torch.manual_seed(config.seed)
    policy = initial_policy(config, tell)
    tuning.apply(policy, config.tune)
    if config.recurrence.chrono:
        keep_for(policy.decoder.rnn, config.recurrence.chrono)
    if config.engine.gradient_checkpointing:
        tuning.checkpoint_gradients(policy)
    _check_cache(config, policy)
    objective = Objective(policy, config.losses)
    if resume:
        run_state.check(config.output, run_state.read(config.output), objective)
    pairs = _pairs(config, policy, tell)
    store = _store(config, tell)
    index, carry = _index(config, store), config.policy.decoder.history == 'carry'
    split = split_episodes if carry else split_windows
    used_E = _used(config, store, policy, tell)
    out_E = np.zeros_like(used_E)
    out_E[used_E] = held_out([episode.name for episode, is_used in zip(store.episodes, used_E)
                              if is_used], config.data.loader.validation_share)
    policy.manifest = config.manifest.fitted(store, used_E & ~out_E)
    weights_F = _weights(config, store, policy.manifest, used_E & ~out_E, tell)
    cotrain = config.losses.cotrain
    data = DataModule(
        store, _placed(config, store.nbytes), policy.manifest, index,
        split(index, out_E, used_E, config.validation.max_windows), config.seed,
        share=share, source_weights=config.data.weights, future=config.losses.future_frames,
        future_cameras=config.losses.future_cameras, pairs=pairs,
        pair_batch_size=cotrain.batch_size if cotrain else 0,
        validation_batch_size=config.validation.batch_size, carry=carry, weights_F=weights_F)
    steps_per_epoch = data.batches_per_epoch / config.optimiser.accumulate
    module = TrainingModule(objective, config, data, Schedule(config.schedule, steps_per_epoch))
    return module.train()  # models come from their libraries in eval mode


def fit(config: TrainConfig, resume: bool = False) -> None:
    """
    Train until the schedule's end.

    :param resume: go on from the state in `config.output`.
    :raises Interrupted: after Ctrl-C, with the state saved.
    :raises LossIsNotFinite: where a loss became NaN.
    """
    if not resume and (config.output / STATE).exists():
        raise ValueError(f'{config.output}: holds a run already; go on with `train --resume '
                         f'{config.output}`, or choose another output')
    logging.getLogger('pytorch_lightning').setLevel(logging.WARNING)
    for expected in _EXPECTED_WARNINGS:
        warnings.filterwarnings('ignore', expected)
    torch.set_float32_matmul_precision('high')  # TF32 for what autocast leaves in fp32
    bar = progress.of_this_terminal(config.engine.log_every_steps)
    pieces = tuning.Pieces()
    trainer = _trainer(config, bar, pieces)
    _leave_stopping_to_the_keeper(trainer)
    module = assemble(config, Share(trainer.global_rank, trainer.world_size),
                      print if trainer.is_global_zero else lambda line: None, resume)
    keeper = Keeper(module, config.output)
    trainer.callbacks.append(keeper)  # type: ignore[attr-defined]
    if module.schedule.max_steps is not None:
        bar.batches = module.schedule.max_steps * config.optimiser.accumulate
    pieces.find(module.objective.policy)
    if config.engine.torch_compile:
        tuning.compile_layers(module.objective.policy, can_replay(
            config, trainer.strategy.root_device))
    if trainer.is_global_zero:
        config.output.mkdir(parents=True, exist_ok=True)
        fitted = module.data.manifest  # whose statistics stay, also if the data grow
        manifest = replace(config.manifest, actions=fitted.actions, states=fitted.states)
        (config.output / USED_CONFIG).write_text(
            yaml_config.dump(replace(config, manifest=manifest)))
    try:
        trainer.fit(module, module.data.train_loader(), module.data.validation_loader(),
                    ckpt_path=config.output / STATE if resume else None, weights_only=True)
    except torch.OutOfMemoryError as error:
        raise _too_large(module) from error
    except Exception as error:
        if resume and not keeper.started:  # it is Lightning that takes the state up
            raise run_state.unfit(config.output, error) from error
        raise


def preview(config: TrainConfig) -> None:
    """Show what a run would be; see :mod:`.dry_run`."""
    loader = replace(config.data.loader, cached_features=0)  # images can be shown, maps cannot
    module = assemble(replace(config, data=replace(config.data, loader=loader)))
    _check_cache(config, module.objective.policy)
    dry_run.dry_run(module)


def resumed(used: TrainConfig, wanted: TrainConfig, where: Path) -> TrainConfig:
    """
    Return the configuration that a run goes on with.

    :param used: what the run was started with.
    :param wanted: the same with overrides.
    :raises ValueError: where there is no state, or where the state would not fit.
    """
    run_state.read(where)
    for name in _FIXED:
        found = difference(getattr(used, name), getattr(wanted, name))
        if found:
            raise ValueError(f'--resume cannot change {name}: {found}; start a new run: train '
                             f'--config {used_config(where)} output=NEW'
                             f'{_from_weights(used, wanted, where)}, with these changes')
    return replace(wanted, output=where)


def can_replay(config: TrainConfig, device: torch.device) -> bool:
    """
    Say whether a compiled backbone's kernels may be CUDA graphs.

    Weights must stay where they are, and gradients are gone at the next forward pass. Under DDP
    they are: it copies them into its own memory as they come.
    """
    return (device.type == 'cuda' and config.optimiser.accumulate == 1
            and config.engine.strategy in ('auto', 'ddp'))


def what_is_next(config: TrainConfig) -> str:
    """Say what a finished run left, and what to do with it."""
    best = config.output / BEST
    kept = [str(config.output / name) for name in (BEST, LAST) if (config.output / name).exists()]
    return (f'trained: {", ".join(kept)}\n'
            f'look at its curves: curves {config.output}\n'
            f'try it in simulation: evaluate --config config/evaluate.yaml checkpoint={best}\n'
            f'or on a robot: ros2 launch ros2_lstm_policy policy.launch.py checkpoint:={best}')


def what_is_left(config: TrainConfig) -> str:
    """Say what of a run is on disk."""
    kept = [str(config.output / name) for name in (BEST, LAST) if (config.output / name).exists()]
    state = (config.output / STATE).exists()
    return (f'checkpoints: {", ".join(kept) or "none yet"}; '
            + (f'go on with: train --resume {config.output}' if state else 'no state to resume'))


def _from_weights(used: TrainConfig, wanted: TrainConfig, where: Path) -> str:
    """Return the setting that starts from a run's weights, where they would be taken."""
    fits = not weights_differ(used.policy, wanted.policy) \
        and used.manifest.cameras == wanted.manifest.cameras
    return f' init_from={where / LAST}' if fits and (where / LAST).is_dir() else ''


def _too_large(module: TrainingModule) -> RuntimeError:
    config = module.config
    module.to_cpu()
    return does_not_fit(dry_run.estimate_memory(module), config.data.loader.batch_size,
                        config.optimiser.accumulate, config.engine.gradient_checkpointing)


def _weights(config: TrainConfig, store: FrameStore, manifest: Manifest, train_E: np.ndarray,
             tell: Callable[[str], None]) -> np.ndarray | None:
    """Return what each step of the store weighs, None where all weigh alike."""
    deciding = config.losses.deciding
    if deciding is None:
        return None
    weights_F = step_weights(store, manifest, deciding)
    share = float((weights_F != 1)[np.repeat(train_E, store.lengths)].mean())
    if share == 0 and deciding.weight != 1:
        raise ValueError('losses.deciding: in no episode to train on does the robot set out after '
                         f'a standstill of {deciding.after_s:g} s; lower after_s, or remove it')
    tell(f'deciding steps: {share:.1%} of those to train on; each weighs {deciding.weight:g}')
    return weights_F


def _index(config: TrainConfig, store: FrameStore) -> WindowIndex:
    """Return what is trained on: windows, or the segments of whole episodes."""
    decoder, segment = config.policy.decoder, config.recurrence.segment
    if decoder.history == 'window':
        return WindowIndex(store.lengths, decoder.window_size, decoder.fwd_pred_next_n)
    return WindowIndex(store.lengths, segment, decoder.fwd_pred_next_n, segment)


def _check_cache(config: TrainConfig, policy: Policy) -> None:
    if config.data.loader.cached_features:
        check_cacheable(policy)
        if config.losses.caption:
            raise ValueError('data.loader.cached_features: the caption loss needs images; set '
                             'losses.caption: false, or cached_features to 0')


def _pairs(config: TrainConfig, policy: Policy, tell: Callable[[str], None]) -> PairSet | None:
    cotrain = config.losses.cotrain
    if cotrain is None:
        return None
    camera = config.manifest.manifest().camera(cotrain.camera)
    pairs = PairSet.load(cotrain.path, replace(camera, crop=None))  # that is of the robot's camera
    reasons = [_why_not(policy, text) for _, text in pairs.lines]
    for (path, _), reason in zip(pairs.lines, reasons):
        if reason:
            tell(f'left out: {path}: {reason}')
    return pairs.only([reason is None for reason in reasons])


def _placed(config: TrainConfig, frames: int) -> LoaderConfig:
    """Say where this many bytes of frames go, where the configuration leaves that open."""
    loader, engine = config.data.loader, config.engine
    if loader.resident != 'auto':
        return loader
    processes = engine.devices or max(1, torch.cuda.device_count())  # of this machine; each copies
    memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') // processes
    if engine.accelerator != 'cpu' and torch.cuda.is_available() \
            and frames <= torch.cuda.mem_get_info()[0] // 2:
        return replace(loader, resident='device')
    return replace(loader, resident='memory' if frames <= memory // 2 else 'disk')


def _store(config: TrainConfig, tell: Callable[[str], None]) -> FrameStore:
    if config.data.store is not None:
        return FrameStore.load(config.data.store)
    limits = config.data.limits.for_policy(config.manifest.manifest())
    request = StoreRequest(config.data.sources, config.manifest.manifest(), limits)
    return open_store(request, config.data.cache, max(1, config.data.loader.workers), tell)


def _used(config: TrainConfig, store: FrameStore, policy: Policy,
          tell: Callable[[str], None]) -> np.ndarray:
    """Return which episodes (E,) the policy is trained on, and tell about the others."""
    sources = [source.path for source in config.data.sources]
    if config.data.store is not None:
        sources = [config.data.store] * (1 + max(e.source for e in store.episodes))
    problems = unusable(store.episodes, sources, partial(_why_not, policy),
                        config.data.limits.failures)
    for problem in problems.values():
        tell(f'left out: {problem}')
    used_E = used(store.episodes, problems, sources)
    if said := failures_said(store.episodes, used_E):
        tell(said)
    return used_E


def _why_not(policy: Policy, text: str) -> str | None:
    """Return why a policy cannot read a text; None where it can."""
    try:
        policy.backbone.tokenize([text])
    except InstructionTooLong as error:
        return f'{error}; policy.backbone.options.max_text_tokens raises the limit'
    except ValueError as error:
        return str(error)
    return None


def _trainer(config: TrainConfig, bar: pl.Callback, pieces: tuning.Pieces) -> pl.Trainer:
    engine, output = config.engine, config.output
    return pl.Trainer(
        accelerator=engine.accelerator, devices=engine.devices or 'auto', num_nodes=engine.nodes,
        strategy=_strategy(config, pieces), precision=_PRECISION[engine.precision],
        accumulate_grad_batches=config.optimiser.accumulate,
        gradient_clip_val=config.optimiser.clip_norm or None, gradient_clip_algorithm='norm',
        max_steps=-1, max_epochs=-1, use_distributed_sampler=False, num_sanity_val_steps=0,
        val_check_interval=config.validation.every_steps * config.optimiser.accumulate,
        check_val_every_n_epoch=None, enable_checkpointing=False, enable_model_summary=False,
        enable_progress_bar=isinstance(bar, progress.Bar),
        log_every_n_steps=1, logger=_loggers(output), callbacks=[bar],
        default_root_dir=output)


def _leave_stopping_to_the_keeper(trainer: pl.Trainer) -> None:
    """
    Take Lightning's question out of the loop.

    It asks the first process at every batch whether it got a SIGTERM, and waits for the GPU until
    it knows. The signal is the keeper's, so the answer is always no.
    """
    loop: Any = trainer.fit_loop.epoch_loop
    loop._broadcast_sigterm_tensor = lambda: None


def _loggers(output: Path) -> list[Logger]:
    """Curves of each part of a run in a folder of its own: logs/part_0, logs/part_1, ..."""
    part = f'part_{len(list((output / LOGS).glob("part_*")))}'
    return [CSVLogger(output, LOGS, part, flush_logs_every_n_steps=1),
            TensorBoardLogger(output, LOGS, part)]


def _strategy(config: TrainConfig, pieces: tuning.Pieces) -> Any:
    several = config.engine.devices != 1 or config.engine.nodes > 1
    if config.engine.strategy == 'ddp' or (config.engine.strategy == 'auto' and several):
        return DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True,
                           find_unused_parameters=not _uses_all(config))
    if config.engine.strategy == 'fsdp':
        return FSDPStrategy(auto_wrap_policy=pieces, state_dict_type='full')
    return config.engine.strategy


def _uses_all(config: TrainConfig) -> bool:
    """Return whether every step trains every parameter: DDP need not look for others then."""
    words = config.losses.caption or config.losses.cotrain is not None
    return backbones.trains_every_parameter(config.policy.backbone.family) and not words


def used_config(run: Path) -> Path:
    """Return the configuration that a run was started with."""
    return run / USED_CONFIG
