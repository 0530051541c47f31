"""What does not fit together is said from the recipe alone, before anything is made: where, and how to mend it."""

import json
from pathlib import Path

import pytest

from kitae.chain import nodes, recipe
from kitae.chain.execute import execute
from kitae.core.errors import KitaeError
from kitae.models.families import build_discriminator, build_headed, build_masked_lm
from kitae.models.folder import Part, write_huggingface
from kitae.models.presets import resolve_preset
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer
from tiny_recipe import kitae, write_recipe

TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(40)))
PAIRS = ('dataset.packing="pairs"', 'dataset.pairs.task="nsp"')
NSP = 'pretrain.objective_config.sentence_order="nsp"'
WORDS = 'tokenizer={ algorithm = "characters-of-words" }'
CHARACTERS = 'pretrain={ model = "character-bert-tiny", objective = "mlm", train = { length = "2 steps" } }'


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path)
    return tmp_path


def planned(*overrides: str) -> str:
    """The message with which the recipe is refused."""
    with pytest.raises(KitaeError) as caught:
        nodes.nodes(*recipe.load("r.toml", overrides))
    return str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (('pretrain.model="bert-tiny"',), ['objective "rtd"', '"BERT" has none', "table [pretrain]"]),
        (('pretrain.model="modernbert-tiny"', 'pretrain.objective="electric"'), ["take an ELECTRA preset", "table [pretrain]"]),
        (('pretrain.model="deberta-v3-tiny"', 'pretrain.objective="electric"'), ['"DeBERTa-v2"', "take an ELECTRA preset"]),
        (('pretrain.model="deberta-v2-tiny"',), ['"rtd" needs a generator', "uniform_generator = true"]),
        (('pretrain.model="bert-tiny"', "pretrain.objective_config.uniform_generator=true"), ['"BERT" has none']),
        ((*PAIRS, 'pretrain.model="roberta-tiny"', 'pretrain.objective="mlm"', NSP), ["RoBERTa has none", "take a BERT preset"]),
        ((*PAIRS, 'pretrain.model="roberta-tiny"', 'pretrain.objective="mlm"'), ["1 kinds of segments", "type_vocab_size = 2"]),
        (('pretrain.model="deberta-tiny"', 'pretrain.objective="mlm"', 'pretrain.initialization="informed"'), ["informed", '"normal"']),
        (('pretrain.objective="electric"', 'pretrain.initialization="informed"'), ["informed", '"normal"']),
        (('pretrain.model="character-bert-tiny"', 'pretrain.objective="mlm"'), ["wordpiece tokens", '"characters-of-words"']),
        ((WORDS,), ["which the model does not read", "take a CharacterBERT"]),
        (("pretrain.config.generator={ hidden_size = 33, num_attention_heads = 2 }",), ["pretrain.config: generator: hidden_size 33"]),
        (("pretrain.config.hidden_size=-3",), ["pretrain.config: hidden_size = -3", "greater than or equal to 1"]),
        (('pretrain.config.hidden_size="64"',), ["pretrain.config: hidden_size = '64'"]),
        (('pretrain.start="model"', "pretrain.config.hidden_dropout_prob=0.0"), ["hidden_dropout_prob has no effect with a start"]),
        (('pretrain.start_generator="model"',), ["start_generator without a start"]),
        (('adapt.objective="mlm"',), ['cannot go on with the models that [pretrain] makes by "rtd"', "table [adapt]"]),
        (("adapt.objective_config={ ratee = 0.2 }",), ["adapt.objective_config", 'did you mean "rate"?', "table [adapt]"]),
        (("adapt.holdout=2",), ["adapt.holdout", "table [adapt]"]),
        (("adapt.source=[]",), ["adapt.source: this list is empty"]),
        (("adapt.train.keep_last=0",), ["adapt.train", "keep_last = 0 would leave no model"]),
        (("finetune.max_length=64",), ["max_length = 64", "32 positions", "table [finetune], task topics"]),
        (("pretrain.train.betas=[0.9, 1.5]",), ["pretrain.train.betas.1"]),
    ],
)
def test_a_recipe_that_cannot_be(place: Path, overrides: tuple[str, ...], expected: list[str]) -> None:
    message = planned(*overrides)
    for words in ("r.toml", *expected):
        assert words in message
    assert message.count("\n") == 1, "what and cure in one line, and where"


@pytest.mark.parametrize(
    "overrides",
    [
        ('pretrain.model="deberta-v2-tiny"', "pretrain.objective_config.uniform_generator=true"),
        ('pretrain.model="electra-tiny"', 'pretrain.objective="mlm"', "adapt.objective_config={ rate = 0.2 }"),
        ("dataset.max_length=600",),
        ("pretrain.config={ hidden_size = 48, num_attention_heads = 3 }",),
        (WORDS, "tokenizer.word_bytes=30", CHARACTERS, 'scale="debug"'),
    ],
)  # fmt: skip
def test_a_recipe_that_can_be(place: Path, overrides: tuple[str, ...]) -> None:
    assert nodes.nodes(*recipe.load("r.toml", overrides))


@pytest.fixture
def folders(place: Path) -> Path:
    """Hugging Face folders of every kind of start, with 16 positions and a tokenizer."""
    config = resolve_preset("bert-tiny", {}, len(TOKENS), 16).encoder
    pair = resolve_preset("electra-tiny", {}, len(TOKENS), 16)
    assert pair.generator is not None
    made = {
        "bert": Part(head="mlm", config=config, state=build_masked_lm(config).state_dict()),
        "classifier": Part(head="sequence", config=config, state=build_headed(config, "sequence").state_dict(), labels=("a", "b")),
        "discriminator": Part(head="rtd", config=pair.encoder, state=build_discriminator(pair.encoder).state_dict()),
        "generator": Part(head="mlm", config=pair.generator, state=build_masked_lm(pair.generator).state_dict()),
    }
    for name, part in made.items():
        write_huggingface(part, place / name)
        Tokenizer.new(TOKENS, SegmenterSpec(kind="whitespace")).save(place / name)
    return place


@pytest.mark.parametrize(
    ("start", "objective", "more", "expected"),
    [
        ("bert", "rtd", "", ["the generator is missing", "neither half"]),
        ("bert", "electric", "", ["the generator is missing"]),
        ("discriminator", "mlm", "", ['"mlm" does not train a discriminator', 'objective = "rtd"']),
        ("discriminator", "electric", "", ["the generator is missing", "the discriminator alone"]),
        ("generator", "rtd", "", ["the discriminator is missing", "the generator alone"]),
        ("classifier", "mlm", "", ["no vocabulary head", "sequence"]),
        ("bert", "mlm", "", ["16 positions", "dataset.max_length = 16 or less", "bert"]),
        ("discriminator", "rtd", ', start_generator = "bert"', ["16 positions"]),
        ("discriminator", "rtd", ', start_generator = "classifier"', ["start_generator holds no generator", "BERT text classifier"]),
        ("discriminator", "rtd", ', regrow = { generator = { fraction = 3 } }', ["generator.fraction = 3"]),
        ("bert", "mlm", ', train = { length = "2 steps", freeze = { layers = 9 } }', ["freeze.layers = 9", "freeze at most 2", "bert"]),
    ],
)  # fmt: skip
def test_a_start_that_cannot_be(folders: Path, start: str, objective: str, more: str, expected: list[str]) -> None:
    short = "dataset={ max_length = 16 }" if "positions" not in expected[0] else "seed=1"
    train = 'train = { length = "2 steps" }'
    given = more.removeprefix(", ") if "train = " in more else train + more
    table = f'pretrain={{ start = "{start}", objective = "{objective}", {given} }}'
    done = kitae("run", "r.toml", "--until", "pretrain", "--set", short, "--set", table)
    assert done.returncode == 2, done.stderr
    for words in expected:
        assert words in done.stderr
    assert not (folders / "run" / "corpus").exists(), "said before hours of work"


def test_an_encoder_with_too_few_positions_is_refused_before_any_training(folders: Path) -> None:
    done = kitae("run", "r.toml", "--set", 'finetune.compare=["bert"]', "--set", "finetune.max_length=20")
    assert done.returncode == 2
    assert "max_length = 20, but the encoder has 16 positions" in done.stderr
    assert not (folders / "run" / "corpus").exists()


def test_plan_refuses_frozen_layers_that_a_start_lacks(folders: Path) -> None:
    table = 'pretrain={ start = "bert", objective = "mlm", train = { length = "2 steps", freeze = { layers = 9 } } }'
    done = kitae("plan", "r.toml", "--set", "dataset={ max_length = 16 }", "--set", table)
    assert (done.returncode, done.stdout) == (2, "")
    assert "freeze.layers = 9, but encoder has 2 layers: freeze at most 2" in done.stderr


def test_plan_refuses_it_too(place: Path) -> None:
    done = kitae("plan", "r.toml", "--set", 'pretrain.model="bert-tiny"')
    assert (done.returncode, done.stdout) == (2, "")


def test_a_half_of_deberta_stands_for_the_generator(place: Path) -> None:
    """transformers' folders of such a half are masked language models like any other."""
    pair = resolve_preset("deberta-v3-tiny", {}, len(TOKENS), 32)
    assert pair.generator is not None
    halves = {"one": ("rtd", build_discriminator(pair.encoder)), "other": ("mlm", build_masked_lm(pair.generator))}
    for name, (head, model) in halves.items():
        config = pair.encoder if head == "rtd" else pair.generator
        write_huggingface(Part(head=head, config=config, state=model.state_dict()), place / name)  # type: ignore[arg-type]
        Tokenizer.new(TOKENS, SegmenterSpec(kind="whitespace")).save(place / name)
    table = 'pretrain={ start = "one", start_generator = "other", objective = "rtd", train = { length = "1 steps", batch = "2 rows" } }'
    overrides = (table, 'tokenizer={ from = "one" }')
    loaded, path = recipe.load("r.toml", overrides)
    made = execute(loaded, path, nodes.select(nodes.nodes(loaded, str(path)), "pretrain"))
    assert made[-1] == "pretrain"
    counts = json.loads((place / "run" / "pretrain" / "manifest.json").read_text(encoding="utf-8"))["facts"]["counts"]
    assert set(counts["parameters"]) == {"generator", "discriminator"}


def test_what_was_refused_before_its_first_step_protects_nothing(folders: Path) -> None:
    table = 'pretrain={ start = "bert", objective = "mlm", train = { length = "1 steps", batch = "2 rows" } }'
    arguments = ("run", "r.toml", "--until", "pretrain", "--set", "dataset.max_length=16", "--set", table)
    done = kitae(*arguments)
    assert done.returncode == 2
    assert "the vocabulary of the start (45 tokens) is not the data set's" in done.stderr
    done = kitae(*arguments, "--set", 'tokenizer={ from = "bert" }')
    assert done.returncode == 0, done.stderr
    done = kitae(*arguments, "--set", 'tokenizer={ from = "bert" }', "--set", "pretrain.train.weight_decay=0.0")
    assert "pretrain is trained already, and its settings changed" in done.stderr
