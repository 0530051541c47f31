"""How likely texts are to an Electric model: a pseudo-log-likelihood in one pass.

Clark et al. 2020 (arXiv:2012.08561), section 2: the sum over a text's tokens of -E, where E is the discriminator's score of a token
(`kitae.objectives.electric`). In nats, normalized only as far as training made it so: compare texts by it, do not read it as a probability.
The sum grows with length; divide by `tokens` to compare texts of different length.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kitae.core.errors import KitaeError
from kitae.models.compose import Discriminator
from kitae.models.folder import Part
from kitae.models.folder import load as load_model
from kitae.models.towers import TwoTowerConfig
from kitae.procedures.inputs import Reads
from kitae.tasks.batches import by_length
from kitae.tasks.encoded import Encoded, encode
from kitae.tasks.examples import Example
from kitae.tensor.batch import Batch
from kitae.tokenization.tokenizer import Tokenizer

TOKENS = 4096  # positions of one batch
ENDLESS = 1 << 60


@dataclass(frozen=True, kw_only=True)
class SentenceScore:
    """How likely one text is."""

    log_likelihood: float
    """Sum of -E over its tokens but [CLS] and [SEP]; greater is likelier. [UNK] counts, though it is never noise in training and its
    energy says little."""
    tokens: int

    def rows(self) -> Iterator[list[str]]:
        """One row of a table."""
        yield [f"{self.log_likelihood:.6f}", str(self.tokens)]

    def json(self) -> dict[str, object]:
        """The same as JSON."""
        return {"log_likelihood": round(self.log_likelihood, 6), "tokens": self.tokens}


class Scorer:
    """An Electric's discriminator and its tokenizer, ready to score; in fp32. `kitae.procedures.predict.Predictor` reads its texts."""

    header = ("log_likelihood", "tokens")
    wanted = ""

    def __init__(self, model: Discriminator, tokenizer: Tokenizer, *, positions: int, reads: Reads | None = None) -> None:
        """positions: the longest piece in tokens, special ones included."""
        self._model, self._tokenizer, self._room = model.eval(), tokenizer, positions - 2
        self.reads = reads or Reads()
        self._device = next(model.parameters()).device

    @classmethod
    def of(
        cls, parts: Mapping[str, Part], tokenizer: Tokenizer, *, device: torch.device | str = "cpu", reads: Reads | None = None
    ) -> "Scorer":
        """From the parts of an Electric checkpoint (`is_electric`). Raises KitaeError when the discriminator is missing."""
        if "discriminator" not in parts:
            raise KitaeError("the discriminator is missing, whose energies are the scores", cure="give a checkpoint of Electric")
        part = parts["discriminator"]
        model = load_model(part)
        assert isinstance(model, Discriminator), "the head says what the model is"
        return cls(model.to(device), tokenizer, positions=part.config.positions, reads=reads)

    @torch.no_grad()
    def answers(self, examples: Sequence[Example]) -> list[SentenceScore]:
        """One score per text, in their order.

        Lines of a text are separate sentences of one piece. A text that is longer than the model's pieces is scored in consecutive parts.
        """
        texts = [example.text for example in examples]
        pieces: list[Encoded] = []
        owners: list[int] = []
        for number, text in enumerate(texts):
            whole = encode(self._tokenizer, text, max_length=ENDLESS)
            for start in range(1, len(whole.ids) - 1, self._room):
                pieces.append(self._piece(whole, start, min(start + self._room, len(whole.ids) - 1)))
                owners.append(number)
        sums, counts = np.zeros(len(texts)), np.zeros(len(texts), np.int64)
        for chosen, batch in by_length(pieces, tokens=TOKENS, pad=self._tokenizer.special.pad):
            here = batch.to(self._device)
            energies_BL = self._model(here).double()
            words_BL = here.words_BL >= 0
            found = (-energies_BL).masked_fill(~words_BL, 0.0).sum(dim=1).tolist()
            for piece, value, count in zip(chosen, found, words_BL.sum(dim=1).tolist(), strict=True):
                sums[owners[piece]] += value
                counts[owners[piece]] += count
        return [SentenceScore(log_likelihood=float(value), tokens=int(count)) for value, count in zip(sums, counts, strict=True)]

    def _piece(self, whole: Encoded, start: int, end: int) -> Encoded:
        special = self._tokenizer.special
        ids = np.concatenate([[special.cls], whole.ids[start:end], [special.sep]])
        return Encoded(ids=ids, words=np.concatenate([[-1], whole.words[start:end], [-1]]).astype(np.int32))


@torch.no_grad()
def likelihood_of_rows(model: Discriminator, batches: Iterable[Batch], device: torch.device) -> tuple[float, int]:
    """(sum of -E over the tokens of packed rows but special ones, how many these are); what a piece gets depends on that piece alone."""
    total, count = 0.0, 0
    for batch in batches:
        here = batch.to(device)
        words_BL = here.words_BL >= 0
        total += float((-model(here).double()).masked_fill(~words_BL, 0.0).sum())
        count += int(words_BL.sum())
    return total, count


def is_electric(parts: Mapping[str, Part]) -> bool:
    """Whether the models of a folder are those of Electric, whose discriminator scores texts."""
    return "generator" in parts and isinstance(parts["generator"].config, TwoTowerConfig)
