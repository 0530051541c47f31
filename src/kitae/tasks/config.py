"""The settings of a labelled task: where its examples lie, how they are split, which columns hold what."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from kitae.core.config import LATER, OPERATIONAL, Config
from kitae.core.paths import fit


def _names(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]


class Split(Config):
    """Shares of one pool of examples, drawn within each label. What they leave over is not used."""

    train: float
    """Share to learn from."""
    validation: float
    """Share to choose the checkpoint on."""
    test: float
    """Share to score on, once."""

    @model_validator(mode="after")
    def _check(self) -> "Split":
        shares = (self.train, self.validation, self.test)
        if min(shares) <= 0 or sum(shares) > 1 + 1e-9:
            raise ValueError(f"the shares {shares} must be above 0 and add up to 1 at most")
        return self


class Parts(Config):
    """A column of the pool that says which split an example belongs to. Rows with another value there are not used."""

    column: str
    """The column."""
    train: Names
    """Its values for examples to learn from."""
    validation: Names = ()
    """For those to choose the checkpoint on; without any, `validation_share` of the training examples."""
    test: Names
    """For those to score on."""


class Submission(Config):
    """Unlabelled examples that a trial predicts, and the table of its predictions as a leaderboard wants it."""

    path: Annotated[str, OPERATIONAL]
    """The file of examples."""
    text: Names = ()
    """Column with the text; by default the task's, as those that follow."""
    second: Names = ()
    """Column with the second text."""
    choices: tuple[str, ...] = ()
    """Columns with the answers to choose from."""
    id: str | None = None
    """Column that names a row in the table; by default rows are counted from 0."""
    format: str | None = None
    """Format of the file."""
    format_config: dict[str, object] | None = None
    """Settings that files of this format have of their own; absent: the task's."""
    columns: tuple[str, str] = ("index", "prediction")
    """What the table's columns are called."""
    bounds: tuple[float, float] | None = None
    """Numbers outside are written as the nearer bound."""


class TaskConfig(Config):
    """A labelled task. Give either `path` and `split` (or `parts`), or `train` and `test` (and `validation`, or a share of train)."""

    name: Annotated[str, AfterValidator(fit)]
    """The task's name, part of its nodes' names."""
    kind: str = "classification"
    """What is predicted: "classification" (one label), or another row of `kitae.tasks.kinds`."""
    kind_config: Annotated[dict[str, object], LATER] = Field(default_factory=dict)
    """Settings that tasks of this kind have of their own."""
    path: Annotated[Names, OPERATIONAL] = ()
    """One or several files that together are the pool which `split` divides; `sample:NAME` is a packaged file."""
    split: Split | None = None
    """Shares of the pool at `path`."""
    parts: Annotated[Parts | None, LATER] = None
    """The column of the pool at `path` that divides it, in the place of `split`."""
    group: Annotated[str, LATER] = ""
    """Column whose value examples have in common that must not be divided between training, validation and test (their document)."""
    split_seed: int = 1
    """Seed of every random split; the same for all encoders and trials."""
    train: Annotated[Names, OPERATIONAL] = ()
    """Files of the training examples."""
    validation: Annotated[Names, OPERATIONAL] = ()
    """Files of the validation examples; without them `validation_share` of the training examples are set aside."""
    validation_share: float = 0.1
    """Share of the training examples set aside for validation, within each label, when there is no validation file."""
    test: Annotated[Names, OPERATIONAL] = ()
    """Files of the test examples."""
    text: Names = ("text",)
    """Column with the text; of several columns, the texts are joined by a new line."""
    second: Annotated[Names, LATER] = ()
    """Column with the second text of a pair, or the context of a question; several are joined."""
    choices: Annotated[tuple[str, ...], LATER] = ()
    """Columns with the answers to choose from."""
    label: str = "label"
    """Column with the label; "" for files without labels."""
    both_orders: Annotated[bool, LATER] = False
    """Learn from every training pair in both orders (ELECTRA's `double_unordered`, for MRPC and STS-B)."""
    hidden: Annotated[tuple[str, ...], LATER] = ()
    """What stands in the place of labels that are kept secret ("-1"): such test examples are predicted and not scored."""
    slices: Annotated[Names, LATER] = ()
    """Columns (the domain, the source) by whose values errors are counted."""
    id: str | None = None
    """Column with the unique name of an example; without it the file's name and the line number are its name."""
    format: str | None = None
    """Format of the files, a row of `kitae.tasks.formats`; by default what their names say (compressed files too)."""
    format_config: Annotated[dict[str, object], LATER] = Field(default_factory=dict)
    """Settings that files of this format have of their own."""
    metric: Annotated[str, LATER] = ""
    """What the task is judged by; "" takes the first metric of its kind."""
    finetune: Annotated[dict[str, object], LATER] = Field(default_factory=dict)
    """What [finetune] takes for this task where the recipe does not say otherwise: { epochs = 10 }."""
    shorten: Annotated[bool, OPERATIONAL] = False
    """Whether the max_length of `finetune` is but proposed, so that encoders of fewer positions take as many as they have. True where
    `like` brings the length; one that the recipe says is refused by such encoders."""
    submissions: Annotated[dict[str, Submission], LATER] = Field(default_factory=dict)
    """Name of a table -> examples without labels whose predictions a trial writes there, in its folder submissions/."""
    beside: Annotated[Names, OPERATIONAL] = ()
    """Further files or folders that the format reads; their content decides the result, too."""
    labels: tuple[str, ...] = ()
    """The labels in a fixed order; by default those of the training examples, sorted."""
    limit: int | None = None
    """Keep at most this many examples in all, spread evenly; for a quick look."""
    licence: str = ""
    """Licence of the data, for the model card."""
    citation: str = ""
    """How to cite the data."""

    @model_validator(mode="after")
    def _check(self) -> "TaskConfig":
        if bool(self.path) != (self.split is not None or self.parts is not None):
            raise ValueError("`path` and `split` (or `parts`) belong together: give both or neither")
        if self.split is not None and self.parts is not None:
            raise ValueError("give `split` or `parts`, not both")
        if bool(self.path) == bool(self.train or self.test or self.validation):
            raise ValueError("give either `path` and `split`, or `train` and `test`")
        if not self.path and not (self.train and self.test):
            raise ValueError("both `train` and `test` are needed when there is no `path`")
        if self.both_orders and not self.second:
            raise ValueError("`both_orders` is for pairs: name the column `second`")
        for name in self.submissions:
            fit(name)
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share = {self.validation_share} must lie between 0 and 1")
        if len(set(self.labels)) != len(self.labels) or not self.text:
            raise ValueError("`labels` must not repeat a label, and `text` needs at least one column")
        return self

    @property
    def files(self) -> tuple[str, ...]:
        """Every file of the task; their content decides the result."""
        asked = (submission.path for submission in self.submissions.values())
        return (*self.path, *self.train, *self.validation, *self.test, *self.beside, *asked)


FILES = ("path", "train", "validation", "test", "beside")
"""The keys that name files."""
