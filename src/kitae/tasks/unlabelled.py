"""Examples without labels whose predictions are submitted somewhere."""

from collections.abc import Sequence

from kitae.core.errors import KitaeError
from kitae.core.paths import locate
from kitae.tasks.config import Submission, TaskConfig
from kitae.tasks.examples import Example
from kitae.tasks.formats import read_examples


def read_submission(task: TaskConfig, submission: Submission) -> list[Example]:
    """Its examples, without gold. Raises KitaeError as readers do, and when an id occurs twice."""
    own = {"text": submission.text or task.text, "second": submission.second or task.second, "choices": submission.choices or task.choices}
    settings = task.format_config if submission.format_config is None else submission.format_config
    settings = {key: value for key, value in settings.items() if not key.startswith("skip_")}  # every row is to be predicted
    unlabelled = {"label": "", "id": submission.id, "format": submission.format or task.format, "format_config": settings}
    plain = {"slices": (), "group": "", "parts": None}
    examples = list(read_examples(locate(submission.path), task.model_copy(update={**own, **unlabelled, **plain})))
    _check_ids(examples)
    return examples


def _check_ids(examples: Sequence[Example]) -> None:
    seen: dict[str, str] = {}
    for example in examples:
        if example.id in seen:
            what = f'the id "{example.id}" occurs twice, first in {seen[example.id]}'
            raise KitaeError(what, cure="name a column of unique ids", where=example.where)
        seen[example.id] = example.where
