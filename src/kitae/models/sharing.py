"""How generator and discriminator share their embeddings: one module for both (ELECTRA), or one table and a difference (DeBERTaV3).

Clark et al. 2020, section 3.2; He et al. 2021 (arXiv:2111.09543), section 3.2, "gradient-disentangled embedding sharing" (GDES).
"""

import torch
from torch import Tensor, nn

from kitae.models.compose import Discriminator, MaskedLm
from kitae.models.gdes import DisentangledTable

TABLES = ("token", "position")
"""The embeddings that are disentangled, as in microsoft/DeBERTa; segments and LayerNorm stay each half's own."""


def share_embeddings(generator: MaskedLm, discriminator: Discriminator) -> None:
    """Give both halves one embedding module, the discriminator's, as ELECTRA trains them; in ELECTRA it has the LayerNorm too."""
    mine, theirs = generator.config, discriminator.config
    assert (mine.vocab_size, mine.embedding_width, mine.max_position_embeddings, mine.segment_kinds) == (
        theirs.vocab_size,
        theirs.embedding_width,
        theirs.max_position_embeddings,
        theirs.segment_kinds,
    ), "halves of one ELECTRA have embeddings of one shape"
    generator.encoder.embed = discriminator.encoder.embed


def disentangle_embeddings(generator: MaskedLm, discriminator: Discriminator) -> None:
    """Make the discriminator's tables the generator's plus a difference; what they hold stays as it is, up to rounding."""
    for name, base, own in tables(generator, discriminator):
        assert base.weight.shape == own.weight.shape, "halves of one model have embeddings of one shape"
        setattr(discriminator.encoder.embed, name, DisentangledTable(base, own.weight))


def copy_embeddings(generator: MaskedLm, discriminator: Discriminator) -> None:
    """Give a new discriminator the tables of a new generator, so that the difference between them starts at zero."""
    with torch.no_grad():
        for _, base, own in tables(generator, discriminator):
            own.weight.copy_(base.weight)


def tables(generator: MaskedLm, discriminator: Discriminator) -> list[tuple[str, nn.Embedding, nn.Embedding]]:
    """(name, the generator's, the discriminator's) of the tables that can be disentangled: those of TABLES that the family has."""
    halves = [dict(half.encoder.embed.named_children()) for half in (generator, discriminator)]
    return [(name, halves[0][name], halves[1][name]) for name in TABLES if name in halves[0] and name in halves[1]]


def standing_alone(model: nn.Module) -> dict[str, Tensor]:
    """A model's weights by name, detached, with tables in the place of differences: what is read from a checkpoint, or exported."""
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    for name, module in model.named_modules():
        if isinstance(module, DisentangledTable):
            del state[f"{name}.delta"]
            state[f"{name}.weight"] = module.weight.detach()
    return state


def differences(module: nn.Module) -> dict[str, str]:
    """Name of every disentangled table below a module -> name of the embedding that it adds to."""
    names = {id(part): name for name, part in module.named_modules()}
    return {name: names[id(part.base)] for name, part in module.named_modules() if isinstance(part, DisentangledTable)}
