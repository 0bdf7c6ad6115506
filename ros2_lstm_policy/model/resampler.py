"""
The Perceiver resampler: N tokens become a fixed number of learned ones.

Flamingo (arXiv 2204.14198, section 3.1.1 and appendix A.1.1): latent queries attend to the
tokens and to themselves, then a feed-forward layer, both residual and pre-normalised.
"""

from __future__ import annotations

from einops import rearrange, repeat

import torch
from torch import nn, Tensor


class ResamplerLayer(nn.Module):
    """One cross-attention and one feed-forward layer."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        """Make the layers; attention is `heads * head_width` wide inside."""
        super().__init__()
        self.heads = heads
        self.norm_latent, self.norm_token = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, heads * head_width, bias=False)
        self.key_value = nn.Linear(width, 2 * heads * head_width, bias=False)
        self.out = nn.Linear(heads * head_width, width, bias=False)
        self.feed_forward = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width),
                                          nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, latents: Tensor, tokens: Tensor) -> Tensor:
        """Update latents (B, L, D) from tokens (B, N, D)."""
        normed = self.norm_latent(latents)
        seen = torch.cat([self.norm_token(tokens), normed], dim=1)
        key, value = rearrange(self.key_value(seen), 'b n (two h e) -> two b h n e',
                               two=2, h=self.heads)
        query = rearrange(self.query(normed), 'b l (h e) -> b h l e', h=self.heads)
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        latents = latents + self.out(rearrange(attended, 'b h l e -> b l (h e)'))
        return latents + self.feed_forward(latents)


class PerceiverResampler(nn.Module):
    """
    Learned queries that read the tokens.

    :param width: D of the tokens and of the latents.
    :param latents: tokens that come out.
    """

    def __init__(self, width: int, latents: int, depth: int = 2, heads: int = 8,
                 head_width: int = 64) -> None:
        """Make the latents and the layers."""
        super().__init__()
        self.latents = nn.Parameter(torch.randn(latents, width) * 0.02)
        self.layers = nn.ModuleList(ResamplerLayer(width, heads, head_width)
                                    for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens_BTND: Tensor) -> Tensor:
        """Map (B, T, N, D) to (B, T, latents, D)."""
        batch = tokens_BTND.shape[0]
        tokens = rearrange(tokens_BTND, 'b t n d -> (b t) n d')
        latents = repeat(self.latents, 'l d -> b l d', b=tokens.shape[0])
        for layer in self.layers:
            latents = layer(latents, tokens)
        return rearrange(self.norm(latents), '(b t) l d -> b t l d', b=batch)
