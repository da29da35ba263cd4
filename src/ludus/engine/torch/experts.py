"""A mixture of experts in place of the MLP (Qwen3-MoE): a router sends each token to a few of many small MLPs.

Which experts a token goes to is decided by a comparison, so a last bit of difference between sampling and training can
send it elsewhere and change its log-probability a lot. The sampler therefore records its choice and the trainer replays
it (routing replay, arXiv 2510.11370): the experts are the recorded ones, their weights are computed anew.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ludus.engine.torch.config import DecoderConfig, Experts
from ludus.engine.torch.flat import FlatParameters


class Routing:
    """Experts that the tokens of one forward go to, by layer: recorded as they are chosen, or replayed.

    Args:
        replayed_TLK: int64 ids of the K experts of each of the L layers that have experts; -1 in place of all is a token
            that is free to choose. None records.
    """

    def __init__(self, replayed_TLK: Tensor | None = None) -> None:
        self._replayed_TLK = replayed_TLK
        self._chosen: dict[int, Tensor] = {}

    def choose(self, place: int, probabilities_TE: Tensor, num_chosen: int) -> Tensor:
        """Ids [T, K] of each token's experts in the layer that is number `place` of those with experts."""
        chosen_TK = probabilities_TE.detach().topk(num_chosen, dim=-1).indices
        if self._replayed_TLK is not None:
            replayed_TK = self._replayed_TLK[:, place]
            chosen_TK = torch.where(replayed_TK >= 0, replayed_TK, chosen_TK)
        self._chosen[place] = chosen_TK
        return chosen_TK

    @property
    def chosen_TLK(self) -> Tensor:
        """What the forward used, of all layers with experts."""
        return torch.stack([self._chosen[place] for place in sorted(self._chosen)], dim=1)


class MixtureOfExperts(nn.Module):
    """Weighted sum of the outputs of a token's experts.

    Args:
        config: of the decoder.
        experts: of the mixture.
        path: name of this module in the decoder.
        layer: index of its layer.
    """

    def __init__(self, config: DecoderConfig, experts: Experts, path: str, layer: int) -> None:
        super().__init__()
        self._settings, self._path, self._place = experts, path, experts.layers.index(layer)
        self._shape = (experts.num_experts, experts.moe_intermediate_size, config.hidden_size)
        self.gate = nn.Linear(config.hidden_size, experts.num_experts, bias=False)
        self.experts = nn.ModuleList(_Expert(*self._shape[1:]) for _ in range(experts.num_experts))

    def groups(self) -> list[tuple[str, ...]]:
        """Names of parameters that must lie side by side."""
        experts = [f"{self._path}.experts.{i}" for i in range(self._settings.num_experts)]
        gate_up = tuple(f"{expert}.{name}.weight" for expert in experts for name in ("gate_proj", "up_proj"))
        return [gate_up, tuple(f"{expert}.down_proj.weight" for expert in experts)]

    def bind(self, flat: FlatParameters) -> None:
        """Take the joined parameters from the buffer."""
        gate_up, down = self.groups()
        self._joined = flat.fuse(gate_up), flat.fuse(down)  # a tuple: these are no parameters of their own

    def forward(self, x_TD: Tensor, routing: Routing | None) -> Tensor:
        num_experts, inner, size = self._shape
        num_chosen = self._settings.num_experts_per_tok
        probabilities_TE = F.linear(x_TD, self.gate.weight).softmax(-1, dtype=torch.float32)
        chosen_TK = (routing or Routing()).choose(self._place, probabilities_TE, num_chosen)
        weights_TK = probabilities_TE.gather(1, chosen_TK)
        if self._settings.norm_topk_prob:
            weights_TK = weights_TK / weights_TK.sum(-1, keepdim=True)
        gate_up, down = self._joined
        gate_up_EID, down_EDI = gate_up.view(num_experts, 2 * inner, size), down.view(num_experts, size, inner)
        # Sorted by expert, the tokens of one lie together: N = T * K rows in all.
        order_N = chosen_TK.flatten().argsort(stable=True)
        counts = torch.bincount(chosen_TK.flatten(), minlength=num_experts).tolist()
        sources_N = order_N // num_chosen
        rows = torch.split(x_TD[sources_N], counts)
        outputs = [_swiglu(rows[e], gate_up_EID[e], down_EDI[e]) for e in range(num_experts) if counts[e]]
        scaled_ND = torch.cat(outputs) * weights_TK.flatten()[order_N, None].to(x_TD.dtype)
        return torch.zeros_like(x_TD).index_add(0, sources_N, scaled_ND)


class _Expert(nn.Module):
    """Holds the names; the arithmetic runs on the joined parameters."""

    def __init__(self, inner: int, size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(size, inner, bias=False)
        self.up_proj = nn.Linear(size, inner, bias=False)
        self.down_proj = nn.Linear(inner, size, bias=False)


def _swiglu(x_ND: Tensor, gate_up_ID: Tensor, down_DI: Tensor) -> Tensor:
    gate, up = F.linear(x_ND, gate_up_ID).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, down_DI)
