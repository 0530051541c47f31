"""Settings of what a training tells of itself while it runs."""

from typing import Annotated, Literal

from pydantic import field_validator

from kitae.core.config import OPERATIONAL, Config

SinkName = Literal["tensorboard", "wandb", "mlflow"]


class MonitorConfig(Config):
    """Where the numbers of a training go beside metrics.jsonl and the console."""

    log_to: Annotated[tuple[SinkName, ...], OPERATIONAL] = ("tensorboard",)
    """Copies of metrics.jsonl: "tensorboard", "wandb", "mlflow". The last two stay on this machine, in folders of the run, unless the
    environment names a server (WANDB_MODE, WANDB_API_KEY or WANDB_BASE_URL; MLFLOW_TRACKING_URI); they need `pip install 'kitae[wandb]'`
    and `'kitae[mlflow]'`."""

    @field_validator("log_to")
    @classmethod
    def _once(cls, value: tuple[SinkName, ...]) -> tuple[SinkName, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"{', '.join(value)} names one of them twice")
        return value
