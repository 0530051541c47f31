"""What objectives of a generator and a discriminator have in common: weights, shared embeddings, and who updates what."""

from typing import Literal, Self

from pydantic import Field, model_validator

from kitae.models.compose import Discriminator, MaskedLm
from kitae.models.cost import flops_per_token
from kitae.models.presets import Architecture
from kitae.models.sharing import disentangle_embeddings, share_embeddings
from kitae.objectives.mlm import MaskingConfig
from kitae.objectives.protocol import Objective
from kitae.tensor.groups import ParameterGroup
from kitae.tokenization.special import SpecialIds


class PairConfig(MaskingConfig):
    """Settings of a generator and a discriminator that are trained together."""

    generator_weight: float = Field(1.0, ge=0)
    """Weight of the generator's loss."""
    discriminator_weight: float = Field(50.0, ge=0)
    """Weight of the discriminator's loss: 50 in ELECTRA, 10 in DeBERTaV3. Where the halves have separate optimizers and share nothing
    that both train, it decides no more than how soon the discriminator's gradient is clipped."""
    embedding_sharing: Literal["shared", "disentangled", "none"] = "shared"
    """"shared" (ELECTRA): both halves have one set of embedding tables (token, position, segment) and, in ELECTRA, one LayerNorm behind it.
    "disentangled" (DeBERTaV3's GDES): the discriminator's token and position tables are the generator's, to which its loss gives no
    gradient, plus a difference of its own, zero at first. "none": every half has its own."""
    optimizers: Literal["joint", "separate"] = "joint"
    """"joint" (ELECTRA): one update, clipped by one norm. "separate" (DeBERTaV3): each half's gradient is clipped by its own norm, and
    the generator may have its own learning rate; shared embeddings go with the generator."""
    generator_learning_rate: float | None = Field(None, gt=0)
    """Highest learning rate of the generator with optimizers = "separate"; it follows the schedule. Default: train.learning_rate."""

    @model_validator(mode="after")
    def _no_dead_rate(self) -> Self:
        if self.generator_learning_rate is not None and self.optimizers == "joint":
            raise ValueError('generator_learning_rate needs optimizers = "separate"')
        return self


class PairObjective(Objective):
    """A generator that makes noise and a discriminator that finds it; subclasses say how."""

    config: PairConfig
    kind: Literal["rtd", "electric"]
    """By which its costs are known."""

    def __init__(
        self, generator: MaskedLm | None, discriminator: Discriminator, config: PairConfig, *, special: SpecialIds, vocab_size: int
    ) -> None:
        """The generator is None where noise needs no model."""
        super().__init__()
        self.generator, self.discriminator, self.config = generator, discriminator, config
        self._masker = config.masker(special=special, vocab_size=vocab_size)
        if generator is not None and config.embedding_sharing == "shared":
            share_embeddings(generator, discriminator)
        elif generator is not None and config.embedding_sharing == "disentangled":
            disentangle_embeddings(generator, discriminator)

    def models(self) -> dict[str, MaskedLm | Discriminator]:
        """Both halves, or the discriminator alone."""
        halves: dict[str, MaskedLm | Discriminator] = {"discriminator": self.discriminator}
        return halves if self.generator is None else {"generator": self.generator} | halves

    def flops_per_token(self, context: float) -> float:
        """See Objective."""
        generator = None if self.generator is None else self.generator.config
        architecture = Architecture(encoder=self.discriminator.config, generator=generator)
        return flops_per_token(architecture, context, self.kind, self.config.mean_rate)

    def groups(self) -> tuple[ParameterGroup, ...]:
        """None for one joint optimizer, else each half."""
        if self.config.optimizers == "joint":
            return ()
        names = [name for name, _ in self.named_parameters()]  # a shared weight has its first name, the generator's
        halves = {half: frozenset(name for name in names if name.startswith(f"{half}.")) for half in self.models()}
        rates = {"generator": self.config.generator_learning_rate}
        return tuple(ParameterGroup(name=half, parameters=own, learning_rate=rates.get(half)) for half, own in halves.items())
