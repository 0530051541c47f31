"""Golden numbers of helboukkouri/character-bert for tests/models/test_character_bert.py, from a local checkout of its repository.

    python tests/golden/make_character_bert.py CHECKOUT

Its own classes run on weights that `character_weights.draw` makes anew from a seed; the file holds what they give, not weights.
Made with commit e2396a6 (2023-10-03), torch 2.10 or later and transformers 5.
"""

import json
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "models"))
import character_weights as weights  # noqa: E402


def main(checkout: Path) -> None:
    """Write character_bert.json."""
    sys.path.insert(0, str(checkout))
    from modeling import character_bert, character_cnn
    from transformers import BertConfig
    from utils.character_cnn import CharacterIndexer

    plain = character_cnn.CharacterCNN._init_weights

    def small(self: torch.nn.Module) -> None:  # its sizes are written into the class
        self._options["char_cnn"].update(filters=weights.FILTERS, embedding={"dim": weights.WIDTH}, n_highway=weights.HIGHWAYS)
        plain(self)

    character_cnn.CharacterCNN._init_weights = small
    chars = CharacterIndexer().as_padded_tensor([sentence.split() for sentence in weights.SENTENCES])
    character_bert.CharacterBertModel.init_weights = lambda self: None  # another contract in transformers 5; weights come below
    config = BertConfig(**weights.NUMBERS, attn_implementation="eager")
    model = character_bert.CharacterBertModel(config).eval()
    state = weights.draw({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
    model.load_state_dict(state)
    segments = weights.segments(chars)
    with torch.no_grad():
        words = model.embeddings.word_embeddings(chars)
        hidden, pooled = model(chars, attention_mask=(chars.sum(-1) > 0).float(), token_type_ids=segments)[:2]
    found = {"characters": chars.tolist(), "words": words.tolist(), "hidden": hidden.tolist(), "pooled": pooled.tolist()}
    text = json.dumps({name: _rounded(value) for name, value in found.items()})
    (HERE / "character_bert.json").write_text(text + "\n", encoding="utf-8")


def _rounded(value: object) -> object:
    return [_rounded(item) for item in value] if isinstance(value, list) else round(value, 6) if isinstance(value, float) else value


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
