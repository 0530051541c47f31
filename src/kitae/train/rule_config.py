"""Which rule moves the weights, and which weights it moves."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kitae.core.config import LATER, Config


class LambConfig(Config):
    """Settings of LAMB (You et al. 2019, arXiv:1904.00962) beside those that it shares with AdamW."""

    adapts: Literal["matrices", "all"] = "matrices"
    """Which weights move in proportion to their own norm: "matrices" as in the authors' code and in apex's FusedLAMB, where norms and
    biases move as with AdamW; "all" as in the paper's algorithm 2 and FusedLAMB's `use_nvlamb`."""


class MuonConfig(Config):
    """Settings of Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) for the matrices of the layers."""

    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Highest learning rate of these matrices, with the same schedule. Default: the training's. About 0.02 with adjust = "original"."""
    adjust: Literal["match_rms_adamw", "original"] = "match_rms_adamw"
    """How the rate of a matrix with A rows and B columns is adjusted: by 0.2 sqrt(max(A, B)), so that steps are as large as AdamW's and
    one learning rate serves both (Liu et al. 2025, arXiv:2502.16982), or by sqrt(max(1, A / B))."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Share of the average that stays in every step."""
    nesterov: bool = True
    """Look one step ahead along the average."""
    iterations: Annotated[int, Field(ge=1, lt=100)] = 5
    """Newton-Schulz iterations that make the step nearly orthogonal."""
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    """Decoupled weight decay of these matrices. Default: the training's; torch.optim.Muon's is 0.1."""


class FreezeConfig(Config):
    """What is not trained: it gets no gradient, stays as it is to the bit, and everything below it is cheaper."""

    embeddings: bool = False
    """All embedding tables, their LayerNorm and the projection behind them. A head that predicts by the token table then keeps the table,
    and learns its bias and its own layers."""
    layers: Annotated[int, Field(ge=0)] = 0
    """So many layers from the bottom, of every encoder (ELECTRA's halves both), and DeBERTa's tables and convolution that these read."""
    encoder: Annotated[bool, LATER] = False
    """All of every encoder, its last norm included: heads alone learn."""


class RuleConfig(Config):
    """The part of the settings that training and fine-tuning have in common: rules, and the weights that they move."""

    optimizer: Literal["adamw", "lamb", "muon"] = "adamw"
    """How weights move. "adamw": every weight by its own averages. "lamb": AdamW's step, scaled for each matrix to the matrix's norm, for
    batches of thousands of rows. "muon": the matrices of the layers by nearly orthogonal steps, fewer of them than AdamW
    needs by its authors' account; embeddings, heads, norms and biases by AdamW."""
    lamb: LambConfig | None = None
    """More of LAMB: { adapts = "all" }. Needs optimizer = "lamb"."""
    muon: MuonConfig | None = None
    """More of Muon: { learning_rate = 0.02, adjust = "original" }. Needs optimizer = "muon"."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Each layer learns at this factor of the rate of the layer above it, the top one at this factor of the head's; 1 is the same rate
    everywhere. For fine-tuning (ELECTRA: 0.8 for small and base, 0.9 for large)."""
    electra_layer_decay: bool = False
    """Count layers as ELECTRA's original code does, by mistake one too far from the head: the top layer learns at layer_decay squared."""
    freeze: FreezeConfig = FreezeConfig()
    """What is not trained: { embeddings = true, layers = 6 }."""

    @model_validator(mode="after")
    def _no_dead_rule(self) -> Self:
        for name in ("lamb", "muon"):
            if getattr(self, name) is not None and self.optimizer != name:
                raise ValueError(f'settings of {name} need optimizer = "{name}"')
        if self.electra_layer_decay and self.layer_decay == 1:
            raise ValueError("electra_layer_decay needs a layer_decay below 1")
        return self
