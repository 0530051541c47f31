"""A fine-tuned model for others: what its outputs mean is folded into its weights, or said in config.json, as far as transformers can."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from kitae.models.folder import Part, write_kitae, write_model
from kitae.procedures.finetuned import MORE, USE, Use, read_use

SCALED = {"offset", "scale"}
"""What a regression's learner holds beside its model."""
PROBLEMS = {"multilabel": "multi_label_classification", "regression": "regression"}
"""What config.json of transformers calls kinds of tasks."""


@dataclass(frozen=True, kw_only=True)
class Handed:
    """A model as it is handed on."""

    part: Part
    use: Use | None
    """How it is used; None for one that is not fine-tuned."""
    more: Mapping[str, Tensor]
    """What its learner holds beside the model."""

    @property
    def alone(self) -> bool:
        """Whether only kitae reads it: transformers has no class, or lacks what the learner holds (the transitions of a CRF)."""
        return not self.part.known.architecture or bool(set(self.more) - SCALED)

    def write(self, name: str, target: Path) -> None:
        """Write the model's files, task.json and task.safetensors among them, into a folder."""
        if self.alone:
            write_kitae(name, self.part, target)
        else:
            write_model(name, self.part, target)
        if self.use is None:
            return
        (target / USE).write_text(self.use.model_dump_json(indent=1), encoding="utf-8")
        if self.more:
            save_file(dict(self.more), target / MORE)
        config = target / "config.json"
        if config.is_file() and self.part.head == "sequence" and self.use.kind in PROBLEMS:
            raw = json.loads(config.read_text(encoding="utf-8")) | {"problem_type": PROBLEMS[self.use.kind]}
            config.write_text(json.dumps(raw, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def handed(part: Part, place: Path) -> Handed:
    """A model of a folder as it is handed on. The scale of a regression becomes a part of its last layer, so that transformers, too,
    gives numbers in their own unit.
    """
    more = load_file(place / MORE) if (place / MORE).is_file() else {}
    if set(more) == SCALED:
        offset, scale = more["offset"], more["scale"]
        state = dict(part.state)
        state["head.out.weight"] = (state["head.out.weight"].double() * scale).float()
        state["head.out.bias"] = (state["head.out.bias"].double() * scale + offset).float()
        part = dataclasses.replace(part, state=state)
        more = {"offset": offset * 0, "scale": scale * 0 + 1}
    return Handed(part=part, use=read_use(place), more=more)
