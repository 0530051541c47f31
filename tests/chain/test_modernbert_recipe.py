"""ModernBERT through a whole recipe: pre-training, adapting, fine-tuning by the mean of a text, and what transformers makes of it."""

from pathlib import Path

import pytest
import torch
import transformers

from kitae.core.artifact import newest
from kitae.models.families import FAMILIES
from kitae.models.folder import load, read_parts
from kitae.tensor.batch import Layout
from tiny_recipe import RECIPE, kitae, write_recipe


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path)
    own = 'config = { classifier_pooling = "mean" }\nobjective_config = { rate = 0.3 }\n'
    recipe = RECIPE.replace('"electra-tiny"', '"modernbert-tiny"').replace('"rtd"', '"mlm"').replace("[adapt]", own + "[adapt]")
    (tmp_path / "r.toml").write_text(recipe, encoding="utf-8")
    return tmp_path


def test_plan(place: Path) -> None:
    done = kitae("plan", "r.toml", "--set", 'pretrain.model="modernbert-base"', "--set", "tokenizer.vocab_size=50368")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "50,368" in line]
    assert line.split()[:3] == ["pretrain", "modernbert-base", "50,368"]
    assert line.split()[-1] == "149.7"


def test_the_smallest_of_the_family_stands_for_all_in_debug(place: Path) -> None:
    done = kitae("plan", "r.toml", "--set", 'pretrain.model="modernbert-large"', "--set", 'scale="debug"')
    assert done.returncode == 0, done.stderr
    assert "modernbert-tiny" in done.stdout


def test_from_text_to_a_classifier_of_transformers(place: Path) -> None:
    done = kitae("run", "r.toml", "--set", 'finetune.compare=["adapt"]')
    assert done.returncode == 0, done.stderr
    trained = newest(place / "run" / "pretrain")
    assert {part.head for part in read_parts(trained).values()} == {"mlm"}
    folders = {path.parent for path in (place / "run" / "export").rglob("config.json")}
    kinds = set()
    ids = torch.randint(5, 1000, (3, 30))
    mask = torch.arange(30)[None] < torch.tensor([[30], [17], [4]])
    for folder in folders:
        (part,) = read_parts(folder).values()
        auto = getattr(transformers, FAMILIES["modernbert"].heads[part.head].auto)
        theirs = auto.from_pretrained(folder).eval()
        with torch.no_grad():
            other, mine = theirs(input_ids=ids, attention_mask=mask.long()).logits, load(part)(ids, Layout.padded(mask))
        if part.head == "mlm":
            other, mine = other[mask], mine[mask]
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)
        assert part.config.pooling == "mean"
        shown = (folder / "README.md").read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
        names: dict[str, object] = {}
        exec(shown.replace("FOLDER", str(folder)), names)  # AutoTokenizer of transformers 5 would not find the words
        assert isinstance(names["tokenizer"], transformers.BertJapaneseTokenizer)
        kinds.add(part.head)
    assert kinds == {"mlm", "sequence"}
