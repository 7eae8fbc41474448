"""From a sentence of the world's grammar to token ids, and from ids to a small learned text embedding."""
from __future__ import annotations

import re
from functools import lru_cache

import torch
from torch import nn

from motionlab.core.errors import MotionLabError
from motionlab.world.captions import CAMERA, TURN, parse_caption, sentence, vocabulary
from motionlab.world.motions import MOTIONS
from motionlab.world.palette import COLOURS, PLACES
from motionlab.world.puppets import SPECIES

PAD, NULL, DROPPED = 0, 1, 2       # padding; "no text at all" (guidance); one attribute that is not said
SPECIAL = ("<pad>", "<null>", "<dropped>")
HEADINGS = ("to the left", "to the right", "facing left", "facing right", *TURN.values())


class Grammar:
    """Tokeniser of the world's captions: one id per word, three special ids before them.

    Args:
        max_length: tokens per sentence, padding included; 28 are needed for two actors and a camera move.
    """

    def __init__(self, max_length: int = 32):
        self.max_length = max_length
        self.words = (*SPECIAL, *vocabulary())
        self.ids = {word: i for i, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, texts: str | list[str]) -> torch.Tensor:
        """Token ids (b, max_length) int64; an empty sentence is the null text.

        Raises:
            MotionLabError: a word outside the grammar (the nearest is named), an order it does not know, too many words.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        return torch.tensor([self._row(text) for text in texts], dtype=torch.int64).reshape(-1, self.max_length)

    def null(self, b: int) -> torch.Tensor:
        """The text that says nothing, (b, max_length)."""
        tokens = torch.full((b, self.max_length), PAD)
        tokens[:, 0] = NULL
        return tokens

    def decode(self, tokens: torch.Tensor) -> list[str]:
        """Sentences of ids (b, max_length); exact inverse of `encode` where nothing was dropped."""
        rows = [" ".join(self.words[i] for i in row if i not in (PAD, NULL)) for row in tokens.tolist()]
        return [row.replace(" the camera ", ", the camera ") for row in rows]

    def drop(self, tokens: torch.Tensor, generator: torch.Generator, text: float = 0.15, attribute: float = 0.05) -> torch.Tensor:
        """Training's dropout: whole sentences become the null text, single attributes become one `<dropped>` per word.

        An attribute goes with the words that would give it away: article and colour, the whole place or camera phrase.
        Drawn on the CPU per sample; a probability of 0 draws nothing. tokens (b, n) -> (b, n), a copy.
        """
        for name, p in (("text", text), ("attribute", attribute)):
            if not 0 <= p <= 1:
                raise MotionLabError(f"The {name} dropout is {p}; it is a probability.",
                                     fix="Choose 0 to 1, for example 0.1.")
        out = tokens.clone()
        if attribute:
            gone = torch.rand(tokens.shape, generator=generator) < attribute
            first = torch.tensor([_attributes(tuple(row)) for row in tokens.tolist()], dtype=torch.int64)
            out[((first >= 0) & gone.gather(1, first.clamp(min=0))).to(out.device)] = DROPPED
        if text:
            empty = (torch.rand(len(tokens), generator=generator) < text).to(out.device)
            out[empty] = self.null(1).to(out.device)
        return out

    def without_heading(self, tokens: torch.Tensor, which: list[int] | None = None) -> torch.Tensor:
        """The headings of sentences (b, n) as `<dropped>`, a copy; which: of several in a sentence, in their order; None: all."""
        out = tokens.clone()
        for row in out:
            found = [k for k in range(len(row)) if _heading_at(tuple(row.tolist()), k)]
            for k in found if which is None else [found[i] for i in which]:
                row[k:k + _heading_at(tuple(row.tolist()), k)] = DROPPED
        return out

    def _row(self, text):
        if not text.strip():
            return self.null(1)[0].tolist()
        said = parse_caption(text)
        with_heading = [a for a in said["actors"] if MOTIONS[a["motion"]].says_heading]
        unsaid = [k for k, actor in enumerate(with_heading) if actor["heading"] is None]
        if unsaid:                                           # read as a sentence that had it, and lost it
            for k in unsaid:
                with_heading[k]["heading"] = "left"
            return self.without_heading(self.encode(sentence(said)), unsaid)[0].tolist()
        row = [self.ids[word] for word in re.findall("[a-z]+", text.lower())]
        if len(row) > self.max_length:
            raise MotionLabError(f"'{text}' has {len(row)} words; the text encoder reads {self.max_length}.",
                                 fix="Name at most two actors.")
        return row + [PAD] * (self.max_length - len(row))


@lru_cache(maxsize=1)
def _phrases() -> tuple[tuple[int, ...], ...]:
    """Ids of every phrase that states one attribute, longest first."""
    ids = {word: i for i, word in enumerate((*SPECIAL, *vocabulary()))}
    said = [*SPECIES, *(motion.verb for motion in MOTIONS.values()), *(place.phrase for place in PLACES.values()),
            *filter(None, CAMERA), *HEADINGS,
            *(f"{article} {colour}" for colour in COLOURS for article in ("a", "an"))]
    return tuple(sorted((tuple(ids[word] for word in phrase.split()) for phrase in said), key=len, reverse=True))


@lru_cache(maxsize=1)
def _headings() -> tuple[tuple[int, ...], ...]:
    """Ids of every phrase that states a heading."""
    ids = {word: i for i, word in enumerate((*SPECIAL, *vocabulary()))}
    return tuple(tuple(ids[word] for word in phrase.split()) for phrase in HEADINGS)


def _heading_at(row: tuple[int, ...], k: int) -> int:
    """Words of the phrase at position k that states a heading; 0 for none."""
    return next((len(p) for p in _headings() if row[k:k + len(p)] == p), 0)


@lru_cache(maxsize=65536)
def _attributes(row: tuple[int, ...]) -> tuple[int, ...]:
    """For each position, where the attribute phrase that it belongs to begins; -1 for words that state none."""
    first, at = [-1] * len(row), 0
    while at < len(row):
        length = next((len(p) for p in _phrases() if row[at:at + len(p)] == p), 0)
        first[at:at + length] = [at] * length
        at += length or 1
    return tuple(first)


class TextEncoder(nn.Module):
    """Word embedding plus learned positions, normalised: tokens (b, n) -> (b, n, d_text). The DiT mixes the words."""

    def __init__(self, words: int, d_text: int, max_length: int = 32):
        super().__init__()
        self.embedding = nn.Embedding(words, d_text)
        self.position = nn.Parameter(0.1 * torch.randn(max_length, d_text))
        self.norm = nn.LayerNorm(d_text)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Raises MotionLabError for another sentence length."""
        if tokens.dim() != 2 or tokens.shape[1] != len(self.position):
            raise MotionLabError(f"Tokens of shape {tuple(tokens.shape)} were given; the text encoder reads (b, {len(self.position)}).",
                                 fix="Use the tokens that `Grammar.encode` of the same backbone gives.")
        return self.norm(self.embedding(tokens) + self.position)
