"""
The recurrent policy head: feature tokens of a window in, one action chunk a step out.

It agrees with `LSTMDecoder` of RoboVLMs (arXiv 2412.14058) and takes its published weights:
state-dict keys `rnn.*`, `actions.mlp.*`, `gripper.mlp.*`. It holds weights only; the history of an
episode is a value of `runtime.history`.

Shape letters as in `types`: B batch, T step, N token, D feature, K action in the chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from einops import rearrange
from ros2_lstm_policy.model.action_heads import ArmHead, MLPHead
from ros2_lstm_policy.model.losses import action_loss
from ros2_lstm_policy.model.resampler import PerceiverResampler
from ros2_lstm_policy.types import ActionChunk
from torch import nn, Tensor

LSTMState: TypeAlias = tuple[Tensor, Tensor]
DownSample = Literal['none', 'pooling', 'resampler']


class LSTMDecoder(nn.Module):
    """
    An LSTM over the steps of a window, and two heads on each of its outputs.

    :param in_features: width D of a token.
    :param action_dim: arm dimensions and one gripper.
    :param down_sample: how N tokens become `latent` ones: 'none' (there are as many already),
        'pooling' (adaptive max-pool over the tokens) or 'resampler' (Perceiver resampler).
    :param latent: tokens a step after that; every width scales with it.
    :param fwd_pred_next_n: actions K in a chunk.
    :param window_size: steps that the policy is trained on and looks back on the robot.
    :param hidden_size: LSTM width for one latent token.
    """

    def __init__(self, in_features: int, action_dim: int = 7, down_sample: DownSample = 'none',
                 latent: int = 1, fwd_pred_next_n: int = 10, window_size: int = 8,
                 hidden_size: int = 1024, num_layers: int = 4, dropout: float = 0.0) -> None:
        """Make the layers; the LSTM keeps PyTorch's initialisation."""
        super().__init__()
        if down_sample not in ('none', 'pooling', 'resampler'):
            raise ValueError(f"down_sample: expected 'none', 'pooling' or 'resampler', found "
                             f'{down_sample!r}')
        self.in_features, self.latent = in_features, latent
        self.down_sample, self.window_size = down_sample, window_size
        self.chunk_size, self.arm_dim = fwd_pred_next_n, action_dim - 1
        if down_sample == 'resampler':
            self.resampler = PerceiverResampler(in_features, latent)
        width = hidden_size * latent
        self.rnn = nn.LSTM(in_features * latent, width, num_layers, batch_first=True,
                           dropout=dropout)
        self.actions = ArmHead(width, self.chunk_size * self.arm_dim)
        self.gripper = MLPHead(width, self.chunk_size)

    def forward(self, tokens_BTND: Tensor, h_0: LSTMState | None = None) -> ActionChunk:
        """
        Predict a chunk at every step of a window.

        :param h_0: (h, c), each (num_layers, B, hidden), before the first step; None for zeros.
        :return: arm (B, T, K, 6) in (-1, 1) and gripper logits (B, T, K).
        """
        output_BTH, _ = self.rnn(self.reduce_tokens(tokens_BTND), h_0)
        return self.heads(output_BTH)

    def step(self, token_BND: Tensor,
             state: LSTMState | None = None) -> tuple[ActionChunk, LSTMState]:
        """Predict the chunk (B, 1, K, ...) of one step, and return the state after it."""
        output_B1H, state = self.rnn(self.reduce_tokens(token_BND.unsqueeze(1)), state)
        return self.heads(output_B1H), state

    def reduce_tokens(self, tokens_BTND: Tensor) -> Tensor:
        """Return the LSTM's input (B, T, latent * D), flattened token by token."""
        self._check_tokens(tokens_BTND)
        if self.down_sample == 'pooling':
            batch = tokens_BTND.shape[0]
            flat = rearrange(tokens_BTND, 'b t n d -> (b t) d n')
            pooled = nn.functional.adaptive_max_pool1d(flat, self.latent)
            return rearrange(pooled, '(b t) d n -> b t (n d)', b=batch)
        if self.down_sample == 'resampler':
            tokens_BTND = self.resampler(tokens_BTND)
        return rearrange(tokens_BTND, 'b t n d -> b t (n d)')

    def heads(self, output_BTH: Tensor) -> ActionChunk:
        """Turn LSTM outputs into chunks."""
        arm = rearrange(self.actions(output_BTH), 'b t (k a) -> b t k a', k=self.chunk_size)
        return ActionChunk(arm, self.gripper(output_BTH))

    def loss(self, pred: Tensor | Sequence[Tensor], labels: tuple[Tensor, Tensor] | None,
             mask: Tensor | None = None) -> dict[str, Tensor | float | None]:
        """
        Compare predictions with labels.

        :param pred: (B, T, K, 7) with the gripper logit last, or the pair that `forward` gives;
            the gripper logits with or without a trailing axis.
        :param labels: arm (B, T, K, 6) and gripper (B, T, K); None where there are none.
        :param mask: (B, T, K), entries that count.
        :return: `loss_arm`, `loss_gripper`, `acc_gripper`; or `{'loss': None}` without labels.
        """
        if labels is None or labels[0] is None:
            return {'loss': None}
        found = action_loss(as_chunk(pred, self.arm_dim), labels[0], labels[1], mask)
        return {'loss_arm': found.arm, 'loss_gripper': found.gripper,
                'acc_gripper': found.gripper_accuracy.item()}

    def _check_tokens(self, tokens: Tensor) -> None:
        if tokens.ndim != 4 or tokens.shape[-1] != self.in_features:
            raise ValueError(f'tokens: expected (B, T, N, {self.in_features}), found '
                             f'{tuple(tokens.shape)}')
        if self.down_sample == 'none' and tokens.shape[2] != self.latent:
            raise ValueError(f"tokens: {tokens.shape[2]} a step, but down_sample 'none' needs "
                             f"latent = {self.latent}; choose 'pooling' or 'resampler', or set "
                             f'latent to {tokens.shape[2]}')


def as_chunk(pred: Tensor | Sequence[Tensor], arm_dim: int) -> ActionChunk:
    """
    Read a chunk from one concatenated tensor or from a pair.

    :raises ValueError: where the gripper logits do not fit the arm's shape.
    """
    if isinstance(pred, Tensor):
        return ActionChunk(pred[..., :arm_dim], pred[..., -1])
    arm, logit = pred
    if logit.ndim == arm.ndim and logit.shape[-1] == 1:
        logit = logit.squeeze(-1)
    if logit.shape != arm.shape[:-1]:
        raise ValueError(f'gripper logits: expected {tuple(arm.shape[:-1])}, with or without a '
                         f'trailing axis of 1, found {tuple(logit.shape)}')
    return ActionChunk(arm, logit)
