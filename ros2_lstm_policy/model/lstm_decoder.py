"""
The policy head: feature tokens of a window in, one action chunk a step out.

It agrees with `LSTMDecoder` of RoboVLMs (arXiv 2412.14058) and takes its published weights:
state-dict keys `rnn.*`, `actions.mlp.*`, `gripper.mlp.*`. It holds weights only; the history of an
episode is a value of `runtime.history`. With `kind: attention` a frame stack stands in the LSTM's
place, a peer without recurrence.

Shape letters as in `types`: B batch, T step, N token, D feature, K action in the chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from einops import rearrange
from ros2_lstm_policy.model.action_heads import ArmHead, MLPHead
from ros2_lstm_policy.model.frame_stack import FrameStack
from ros2_lstm_policy.model.losses import action_loss
from ros2_lstm_policy.model.resampler import PerceiverResampler
from ros2_lstm_policy.types import ActionChunk
import torch
from torch import nn, Tensor

LSTMState: TypeAlias = tuple[Tensor, Tensor]
DownSample = Literal['none', 'pooling', 'resampler']
Kind = Literal['lstm', 'attention']


class LSTMDecoder(nn.Module):
    """
    An LSTM over the steps of a window, and two heads on each of its outputs.

    `rnn` is the LSTM, or what stands in its place.

    :param in_features: width D of a token.
    :param action_dim: values of an action: the continuous ones, then the binary ones.
    :param binary: how many of these are binary; 0 makes no head for them.
    :param down_sample: how N tokens become `latent` ones: 'none' (there are as many already),
        'pooling' (adaptive max-pool over the tokens) or 'resampler' (Perceiver resampler).
    :param latent: tokens a step after that; every width scales with it.
    :param fwd_pred_next_n: actions K in a chunk.
    :param window_size: steps that the policy is trained on and looks back on the robot.
    :param hidden_size: LSTM width for one latent token.
    :param kind: 'lstm', or 'attention' over the last `window_size` steps.
    """

    def __init__(self, in_features: int, action_dim: int = 7, down_sample: DownSample = 'none',
                 latent: int = 1, fwd_pred_next_n: int = 10, window_size: int = 8,
                 hidden_size: int = 1024, num_layers: int = 4, dropout: float = 0.0,
                 binary: int = 1, kind: Kind = 'lstm') -> None:
        """Make the layers; the LSTM keeps PyTorch's initialisation."""
        super().__init__()
        if down_sample not in ('none', 'pooling', 'resampler'):
            raise ValueError(f"down_sample: expected 'none', 'pooling' or 'resampler', found "
                             f'{down_sample!r}')
        self.in_features, self.latent = in_features, latent
        self.down_sample, self.window_size = down_sample, window_size
        self.chunk_size = fwd_pred_next_n
        self.continuous, self.binary = action_dim - binary, binary
        if down_sample == 'resampler':
            self.resampler = PerceiverResampler(in_features, latent)
        width = hidden_size * latent
        self.rnn = FrameStack(
            in_features * latent, width, num_layers, window_size, dropout,
        ) if kind == 'attention' else nn.LSTM(
            in_features * latent, width, num_layers, batch_first=True, dropout=dropout)
        self.actions = ArmHead(width, self.chunk_size * self.continuous)
        self.gripper = MLPHead(width, self.chunk_size * binary) if binary else None

    def forward(self, tokens_BTND: Tensor,
                h_0: LSTMState | None = None) -> tuple[Tensor, Tensor]:
        """
        Predict as the reference's decoder does, whose one gripper has no axis of its own.

        :return: arm (B, T, K, 6) and gripper logits (B, T, K); where there is another number of
            binary values, (B, T, K, G).
        """
        continuous, logit = self.predict(tokens_BTND, h_0)
        return continuous, logit.squeeze(-1) if self.binary == 1 else logit

    def predict(self, tokens_BTND: Tensor, h_0: LSTMState | None = None) -> ActionChunk:
        """
        Predict a chunk at every step of a window.

        :param h_0: (h, c), each (num_layers, B, hidden), before the first step; None for zeros.
        :return: continuous (B, T, K, C) in (-1, 1) and binary logits (B, T, K, G).
        """
        return self.unroll(tokens_BTND, h_0)[0]

    def unroll(self, tokens_BTND: Tensor,
               state: LSTMState | None = None) -> tuple[ActionChunk, LSTMState]:
        """Predict likewise, and return the state after the last step."""
        output_BTH, state = self.rnn(self.reduce_tokens(tokens_BTND), state)
        return self.heads(output_BTH), state

    def step(self, token_BND: Tensor,
             state: LSTMState | None = None) -> tuple[ActionChunk, LSTMState]:
        """Predict the chunk (B, 1, K, ...) of one step, and return the state after it."""
        return self.unroll(token_BND.unsqueeze(1), state)

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
        shape = (self.chunk_size, -1)
        continuous_BTKC = self.actions(output_BTH).unflatten(-1, shape)
        if self.gripper is None:
            return ActionChunk(continuous_BTKC, continuous_BTKC[..., :0])
        return ActionChunk(continuous_BTKC, self.gripper(output_BTH).unflatten(-1, shape))

    def loss(self, pred: Tensor | Sequence[Tensor], labels: tuple[Tensor, Tensor] | None,
             mask: Tensor | None = None) -> dict[str, Tensor | float | None]:
        """
        Compare predictions with labels.

        :param pred: (B, T, K, 7) with the gripper logit last, or the pair that `forward` gives;
            the gripper logits with or without a trailing axis.
        :param labels: arm (B, T, K, 6) and gripper (B, T, K), with or without a trailing axis;
            None where there are none.
        :param mask: (B, T, K), entries that count.
        :return: `loss_arm`, `loss_gripper`, `acc_gripper`; or `{'loss': None}` without labels.
        """
        if labels is None or labels[0] is None:
            return {'loss': None}
        arm, gripper = labels
        found = action_loss(as_chunk(pred, self.continuous), arm, _with_axis(gripper, arm), mask)
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


@torch.no_grad()
def keep_for(rnn: nn.Module, steps: int) -> None:
    """
    Let the cells of a new LSTM keep what they have for 1 to so many steps, each for another time.

    "Chrono initialisation" of Tallec and Ollivier, arXiv 1804.11188, section 2: the forget gates'
    biases are log U(1, steps - 1), and the input gates' the opposite.
    """
    assert isinstance(rnn, nn.LSTM)
    hidden = rnn.hidden_size
    for layer in range(rnn.num_layers):
        bias, other = (getattr(rnn, f'bias_{name}_l{layer}') for name in ('ih', 'hh'))
        forget = torch.empty_like(bias[:hidden]).uniform_(1, steps - 1).log()
        bias[:hidden], bias[hidden:2 * hidden] = -forget, forget
        other[:2 * hidden] = 0


def as_chunk(pred: Tensor | Sequence[Tensor], continuous: int) -> ActionChunk:
    """
    Read a chunk from one concatenated tensor or from a pair.

    :raises ValueError: where the gripper logits do not fit the arm's shape.
    """
    if isinstance(pred, Tensor):
        return ActionChunk(pred[..., :continuous], pred[..., continuous:])
    arm, logit = pred
    logit = _with_axis(logit, arm)
    if logit.shape[:-1] != arm.shape[:-1]:
        raise ValueError(f'gripper logits: expected {tuple(arm.shape[:-1])}, with or without a '
                         f'trailing axis, found {tuple(logit.shape)}')
    return ActionChunk(arm, logit)


def _with_axis(value: Tensor, like: Tensor) -> Tensor:
    """Return a gripper's values with the trailing axis that the reference leaves out."""
    return value.unsqueeze(-1) if value.ndim == like.ndim - 1 else value
