"""LightGlue's forward pass for one query and many images of a map, on a processor.

The network is that of Lindenberger et al., "LightGlue: Local Feature Matching at Light Speed", ICCV
2023, with early stopping and pruning as published; the weights are those of kornia's module. What
is ours is the order of the work: linear maps that follow one another are multiplied beforehand, no
attention matrix is written to memory, what does not depend on the other image is computed once a
query, and products may be in bfloat16.
"""

import copy
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

# Of views: chosen on listed queries of castle-P30 and fountain-P11 (docs/hloc.md).
VIEW_DEPTH_CONFIDENCE, VIEW_THRESHOLD = 0.99, 0.01


class Tokens(NamedTuple):
    """One image's keypoints on their way through the network.

    Attributes:
        x: (N, d) float32 states.
        cos, sin: (N, h / 2) rotations of the positions, of a head's h dimensions.
    """

    x: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor

    def keep(self, rows: torch.Tensor) -> "Tokens":
        return Tokens(self.x[rows], self.cos[rows], self.sin[rows])


class LogAssignment(NamedTuple):
    """What the network says of each pair of keypoints and of each keypoint.

    Attributes:
        similarity: (M, N) float32.
        query, image: (M,), (N,) logits that a keypoint has a match.
    """

    similarity: torch.Tensor
    query: torch.Tensor
    image: torch.Tensor

    def of_pairs(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Logarithms of the assignment's entries (paper, equation 8): (k,)."""
        sim = self.similarity
        return (
            2 * sim[rows, columns]
            - sim.logsumexp(1)[rows]
            - sim.logsumexp(0)[columns]
            + F.logsigmoid(self.query)[rows]
            + F.logsigmoid(self.image)[columns]
        )


@dataclass(frozen=True)
class _Block:
    """Weights of an attention block: projections in, and the two layers of its perceptron."""

    proj: tuple[torch.Tensor, torch.Tensor]
    first: tuple[torch.Tensor, torch.Tensor]
    norm: tuple[torch.Tensor, torch.Tensor, float]
    second: tuple[torch.Tensor, torch.Tensor]


def _folded(ffn: Any, out: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The perceptron's first layer on [x, context], with the attention's output layer in it."""
    weight, bias = ffn[0].weight, ffn[0].bias
    dim = out.weight.shape[0]
    right = weight[:, dim:]
    return torch.cat([weight[:, :dim], right @ out.weight], 1), bias + right @ out.bias


class FastLightGlue:
    """The same function as kornia's ``LightGlue``, for one pair of images.

    Args:
        net: kornia's module with its weights, in evaluation mode, without scales and orientations.
        dtype: of the products; states and normalisations are float32.
    """

    def __init__(self, net: Any, dtype: torch.dtype = torch.float32):
        conf = net.conf
        if conf.add_scale_ori or conf.add_laf:
            raise ValueError("a map has no scales and orientations")
        self.net, self.dtype = net, dtype
        self.heads, self.num_layers = int(conf.num_heads), int(conf.n_layers)
        self.filter_threshold = float(conf.filter_threshold)
        self.depth_confidence = float(conf.depth_confidence)
        self.width_confidence = float(conf.width_confidence)
        with torch.no_grad():
            self._self = [self._self_block(t.self_attn) for t in net.transformers]
            self._cross = [self._cross_block(t.cross_attn) for t in net.transformers]

    def for_views(self) -> "FastLightGlue":
        """The same network, for views from a query's own place (``match_view``).

        Such a view leaves so few false matches that less certain ones may stay, and one call a
        query affords to stop late.
        """
        other = copy.copy(self)
        other.depth_confidence, other.filter_threshold = VIEW_DEPTH_CONFIDENCE, VIEW_THRESHOLD
        return other

    def _block(self, weight: Any, bias: Any, ffn: Any, out: Any) -> _Block:
        def cast(*tensors: torch.Tensor) -> Any:
            return tuple(t.detach().to(self.dtype).contiguous() for t in tensors)

        norm = ffn[1]
        return _Block(
            cast(weight, bias),
            cast(*_folded(ffn, out)),
            (norm.weight.detach().float(), norm.bias.detach().float(), norm.eps),
            cast(ffn[3].weight, ffn[3].bias),
        )

    def _self_block(self, block: Any) -> _Block:
        # kornia's rows are (head, dimension, q k v); here they are (q k v, head, dimension), and of
        # q and k the even dimensions before the odd ones: a rotation then takes two halves.
        dim = block.Wqkv.in_features
        rows = torch.arange(3 * dim).view(self.heads, dim // self.heads, 3).permute(2, 0, 1)
        halves = torch.cat([rows[..., 0::2], rows[..., 1::2]], -1)
        order = torch.cat([halves[:2].flatten(), rows[2].flatten()])
        return self._block(
            block.Wqkv.weight[order], block.Wqkv.bias[order], block.ffn, block.out_proj
        )

    def _cross_block(self, block: Any) -> _Block:
        weight = torch.cat([block.to_qk.weight, block.to_v.weight])
        bias = torch.cat([block.to_qk.bias, block.to_v.bias])
        return self._block(weight, bias, block.ffn, block.to_out)

    @torch.no_grad()
    def tokens(
        self, keypoints: torch.Tensor, descriptors: torch.Tensor, size: tuple[int, int]
    ) -> Tokens:
        """``first_tokens`` without gradients."""
        return self.first_tokens(keypoints, descriptors, size)

    def first_tokens(
        self, keypoints: torch.Tensor, descriptors: torch.Tensor, size: tuple[int, int]
    ) -> Tokens:
        """An image's tokens after the first self-attention, which no other image enters.

        Differentiable in the descriptors, as ``log_assignments`` are in the tokens.

        Args:
            keypoints: (N, 2) float32 pixels, clamped to the image here.
            descriptors: (N, D) float32.
            size: (width, height).
        """
        limit = torch.tensor(size, dtype=torch.float32)
        inside = torch.minimum(keypoints.clamp(min=0), limit - 1)
        angles = self.net.posenc.Wr((inside - limit / 2) / (limit.max() / 2))
        tokens = Tokens(self.net.input_proj(descriptors), angles.cos(), angles.sin())
        return self._attend_self(0, tokens)

    def _split(self, x: torch.Tensor, parts: int) -> torch.Tensor:
        """(N, parts d) to (parts, 1, heads, N, h)."""
        return x.view(len(x), parts, self.heads, -1).permute(1, 2, 0, 3)[:, None]

    def _mlp(self, block: _Block, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """x + perceptron([x, context]); the context is (1, heads, N, h)."""
        flat = context[0].transpose(0, 1).reshape(x.shape)
        y = F.linear(torch.cat([x.to(self.dtype), flat], 1), *block.first)
        weight, bias, eps = block.norm
        y = F.gelu(F.layer_norm(y.float(), weight.shape, weight, bias, eps))
        return x + F.linear(y.to(self.dtype), *block.second).float()

    def _attend_self(self, layer: int, tokens: Tokens) -> Tokens:
        block = self._self[layer]
        q, k, v = self._split(F.linear(tokens.x.to(self.dtype), *block.proj), 3)
        cos, sin = tokens.cos.to(self.dtype), tokens.sin.to(self.dtype)

        def turned(t: torch.Tensor) -> torch.Tensor:
            a, b = t.chunk(2, -1)
            return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

        context = F.scaled_dot_product_attention(turned(q), turned(k), v)
        return tokens._replace(x=self._mlp(block, tokens.x, context))

    def _attend_cross(self, layer: int, a: Tokens, b: Tokens) -> tuple[Tokens, Tokens]:
        block = self._cross[layer]
        qk_a, v_a = self._split(F.linear(a.x.to(self.dtype), *block.proj), 2)
        qk_b, v_b = self._split(F.linear(b.x.to(self.dtype), *block.proj), 2)
        from_b = F.scaled_dot_product_attention(qk_a, qk_b, v_b)
        from_a = F.scaled_dot_product_attention(qk_b, qk_a, v_a)
        return (
            a._replace(x=self._mlp(block, a.x, from_b)),
            b._replace(x=self._mlp(block, b.x, from_a)),
        )

    def log_assignments(
        self, query: Tokens, image: Tokens, layers: Collection[int]
    ) -> Iterator[LogAssignment]:
        """What the network would answer after each of ``layers``, all keypoints kept.

        The published networks are trained to answer after each layer (paper, section 3.3).
        """
        a, b = query, image
        for layer in range(max(layers) + 1):
            if layer:
                a, b = self._attend_self(layer, a), self._attend_self(layer, b)
            a, b = self._attend_cross(layer, a, b)
            if layer in layers:
                yield self._log_assignment(layer, a, b)

    def _log_assignment(self, layer: int, a: Tokens, b: Tokens) -> LogAssignment:
        head = self.net.log_assignment[layer]
        scale = a.x.shape[1] ** 0.25
        left, right = head.final_proj(a.x) / scale, head.final_proj(b.x) / scale
        return LogAssignment(
            left @ right.T, head.matchability(a.x).squeeze(1), head.matchability(b.x).squeeze(1)
        )

    @torch.no_grad()
    def match(self, query: Tokens, image: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
        """Matches of two images from their ``tokens``.

        Returns:
            (k, 2) int64 rows of both, by row of the query, and (k,) float32 scores.
        """
        outcome = self._run(query, image)
        if outcome is None:
            return torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0)
        (sim, query_fit, image_fit), rows_a, rows_b = outcome
        z_a, z_b = F.logsigmoid(query_fit)[:, None], F.logsigmoid(image_fit)
        # log softmax over both sides and the certainties, in place: one matrix in memory
        rows, columns = sim.logsumexp(1, keepdim=True), sim.logsumexp(0)
        pairs, scores = self._mutual(sim.mul_(2).add_(z_a - rows).add_(z_b - columns))
        return torch.stack([rows_a[pairs[:, 0]], rows_b[pairs[:, 1]]], 1), scores

    @torch.no_grad()
    def match_view(self, query: Tokens, view: Tokens) -> tuple[torch.Tensor, int]:
        """Matches of a query with a view of what several images show.

        A place that was triangulated twice, from different images, has two points in the view. A
        point that is nobody's mutual best may so share a keypoint: the one that it looks most
        like, where the assignment is above the threshold without the softmax over the view.

        Returns:
            (k, 2) int64 rows of both, and how many of them ``match`` of the network as published
            gives: shared keypoints are many in a view from a false place.
        """
        outcome = self._run(query, view)
        if outcome is None:
            return torch.zeros(0, 2, dtype=torch.int64), 0
        (sim, query_fit, view_fit), rows_a, rows_b = outcome
        z_a, z_b = F.logsigmoid(query_fit)[:, None], F.logsigmoid(view_fit)
        alone = sim - sim.logsumexp(0) + z_a + z_b
        best, row = alone.max(0)
        pairs, scores = self._mutual(alone.add_(sim).sub_(sim.logsumexp(1, keepdim=True)))
        shares = best > math.log(self.filter_threshold)
        shares[pairs[:, 1]] = False
        columns = shares.nonzero().squeeze(1)
        sure = int((scores > float(self.net.conf.filter_threshold)).sum())
        pairs = torch.cat([pairs, torch.stack([row[columns], columns], 1)])
        return torch.stack([rows_a[pairs[:, 0]], rows_b[pairs[:, 1]]], 1), sure

    def _run(
        self, query: Tokens, image: Tokens
    ) -> tuple[LogAssignment, torch.Tensor, torch.Tensor] | None:
        """The layers, until the network is sure.

        Returns:
            What it says of the rows of both sides that are left, and these rows; None where one
            side has none.
        """
        rows_a, rows_b = torch.arange(len(query.x)), torch.arange(len(image.x))
        total = len(query.x) + len(image.x)
        a, b = query, image
        for layer in range(self.num_layers):
            if layer:
                a, b = self._attend_self(layer, a), self._attend_self(layer, b)
            a, b = self._attend_cross(layer, a, b)
            if layer == self.num_layers - 1:
                break
            confidence: list[torch.Tensor | None] = [None, None]
            if self.depth_confidence > 0:
                token = self.net.token_confidence[layer].token
                confidence = [token(t.x).squeeze(-1) for t in (a, b)]
                limit = self.net.confidence_thresholds[layer]
                unsure = sum(int((c < limit).sum()) for c in confidence if c is not None)
                if 1 - unsure / total > self.depth_confidence:
                    break
            if self.width_confidence > 0:
                kept_a = self._kept(layer, a, confidence[0])
                a, rows_a = a.keep(kept_a), rows_a[kept_a]
                kept_b = self._kept(layer, b, confidence[1])
                b, rows_b = b.keep(kept_b), rows_b[kept_b]
                if len(rows_a) == 0 or len(rows_b) == 0:
                    return None
        return self._log_assignment(layer, a, b), rows_a, rows_b

    def _kept(self, layer: int, tokens: Tokens, confidence: torch.Tensor | None) -> torch.Tensor:
        """Rows that stay: matchable ones, and those that the network is not sure of yet."""
        matchable = torch.sigmoid(self.net.log_assignment[layer].matchability(tokens.x)).squeeze(-1)
        keep = matchable > 1 - self.width_confidence
        if confidence is not None:
            keep |= confidence <= self.net.confidence_thresholds[layer]
        return keep.nonzero().squeeze(1)

    def _mutual(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mutual maxima of (n, m) log scores, above the threshold, and their scores."""
        best = scores.max(1)
        mutual = scores.argmax(0)[best.indices] == torch.arange(len(scores))
        kept = (mutual & (best.values.exp() > self.filter_threshold)).nonzero().squeeze(1)
        return torch.stack([kept, best.indices[kept]], 1), best.values[kept].exp()
