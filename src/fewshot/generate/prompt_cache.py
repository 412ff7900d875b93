"""What was read before: texts in the KV cache that a new prompt can go on from, at any token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fewshot.generate.next_logits import n_common
from fewshot.generate.request import Request, TokenScore
from fewshot.model.paged_cache import CachedText, PagedCache


@dataclass(frozen=True)
class _Kept:
    """A text that was read, and the scores of its tokens from the second on, as far as they are known."""

    text: CachedText
    scores: tuple[TokenScore, ...] = ()
    n_top: int = 0  # likeliest tokens in each score


class PromptCache:
    """Texts that were read, the least recently used first; the `PagedCache` lets go of them where it needs room.

    A text is found by how many tokens a prompt begins with it, so that texts that branch share their pages up to the
    branch. Texts of another `key` are never found.
    """

    def __init__(self, cache: PagedCache) -> None:
        self.cache = cache
        self._kept: dict[tuple[str, tuple[int, ...]], _Kept] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, request: Request) -> tuple[CachedText, tuple[TokenScore, ...]]:
        """Return a text that has read as much of the prompt as possible, all but its last token at most.

        Where the prompt's tokens are to be scored, the scores of those that are known and asked for are returned too:
        up to the token behind the last that was read.
        """
        usable = [(self._n_usable(request, name), name) for name in self._kept if name[0] == request.key]
        for n, name in sorted(usable, key=lambda pair: -pair[0]):
            kept = self._kept.pop(name, None) if n > 0 else None  # it may be one that goes where room is made
            if kept is None:
                continue
            self._kept[name] = kept  # the most recently used now
            twin = self.cache.copy(kept.text, n)
            if twin is not None:
                scores = kept.scores[request.n_unscored - 1 : n] if request.prompt_logprobs else ()
                return twin, tuple(replace(score, top=score.top[: request.top_logprobs]) for score in scores)
        return self.cache.new_text(), ()

    def n_cached(self, request: Request) -> int:
        """Return how many tokens of a prompt were read before."""
        return max((self._n_usable(request, name) for name in self._kept if name[0] == request.key), default=0)

    def _n_usable(self, request: Request, name: tuple[str, tuple[int, ...]]) -> int:
        kept, n = self._kept[name], min(n_common(request.prompt, name[1]), len(request.prompt) - 1)
        if not request.prompt_logprobs:
            return n
        n_known = min(n - 1, len(kept.scores)) if kept.n_top >= request.top_logprobs else 0
        return max(n_known, min(n, request.n_unscored - 1))

    def add(self, request: Request, text: CachedText, scores: Sequence[TokenScore] = ()) -> None:
        """Keep a text that has read a request's prompt; it is the cache's from now on, as are scores from the first."""
        name = (request.key, tuple(request.prompt))
        scores = scores if request.n_unscored == 1 else ()
        new, old = _Kept(text, tuple(scores), request.top_logprobs), self._kept.pop(name, None)
        if old is not None:
            self.cache.share(old.text, text)
            self.cache.drop(old.text)
            if (len(old.scores), old.n_top) > (len(new.scores), new.n_top):
                new = replace(new, scores=old.scores, n_top=old.n_top)
        self._kept[name] = new

    def make_room(self) -> bool:
        """Let go of pages of the least recently used text: those in its middle first, then all."""
        for name, kept in self._kept.items():
            if not self.cache.trim(kept.text):
                self.cache.drop(self._kept.pop(name).text)
            return True
        return False
