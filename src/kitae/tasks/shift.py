"""Learning from one task's labels and being scored on another's: a shift of domain."""

from dataclasses import replace

from kitae.core.errors import KitaeError
from kitae.tasks.kinds import kind_of, options_of
from kitae.tasks.records import TaskData


def shifted(source: TaskData, target: TaskData) -> TaskData:
    """The training and validation examples of `source`, the test examples of `target`; no label of the target is learnt or chosen on.

    Raises KitaeError when the two are of different kinds, or the target's test examples have a label that the source lacks.
    """
    mine, other = source.config, target.config
    where = f"the tasks {mine.name} and {other.name}"
    if mine.kind != other.kind:
        what = f"{mine.name} is {mine.kind}, {other.name} is {other.kind}: neither can learn from the other"
        raise KitaeError(what, cure="name two tasks of one kind", where=where)
    kind, options = kind_of(mine), options_of(mine)
    for example in target.test:
        if example.gold is not None:
            try:
                kind.check(example, source.labels, options)
            except KitaeError as error:
                cure = f"map or drop that label in the reading of {other.name}: {mine.name} has {', '.join(source.labels) or 'none'}"
                raise KitaeError(f"{error.what}, of those of {mine.name}", cure=cure, where=error.where) from error
    known = {example.texts for example in (*source.train, *source.validation)}
    return replace(
        source,
        config=other.model_copy(update={"kind_config": mine.kind_config}),
        test=target.test,
        leaked=sum(example.texts in known for example in target.test),
    )
