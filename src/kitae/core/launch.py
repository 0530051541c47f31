"""How this process was started: alone, or as one of several by torchrun, Slurm's srun or mpirun. Read from the environment, no torch."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from kitae.core.errors import KitaeError

PORT = 29500
"""Where processes meet when nothing else is said; torch's default."""
AGENT = "torchrun"
"""In the place of an address: torchrun brings a meeting place of its own, which its variables name to torch."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """The place of this process among all that were started together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Number of this process on its machine, and of its device there."""
    node: str = ""
    """Number of the machine, where the launcher numbers them."""
    address: str = ""
    """Where rank 0 listens; AGENT when torchrun listens for it."""
    port: int = PORT

    @property
    def main(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0


@dataclass(frozen=True, kw_only=True)
class _Names:
    """What one launcher calls these things."""

    rank: str
    sizes: tuple[str, ...]
    local: str
    node: str = ""


MPI = (
    _Names(rank="OMPI_COMM_WORLD_RANK", sizes=("OMPI_COMM_WORLD_SIZE",), local="OMPI_COMM_WORLD_LOCAL_RANK"),
    _Names(rank="PMI_RANK", sizes=("PMI_SIZE",), local="MPI_LOCALRANKID"),
)
SLURM = _Names(rank="SLURM_PROCID", sizes=("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), local="SLURM_LOCALID", node="SLURM_NODEID")


def launch(environment: Mapping[str, str] | None = None) -> Launch:
    """Where this process stands: by torchrun's variables, else by those of a Slurm task, else by mpirun's; alone without any.

    Raises KitaeError when they contradict each other, or do not say where the processes can meet.
    """
    given = os.environ if environment is None else environment
    if "RANK" in given or "WORLD_SIZE" in given:
        names = _Names(rank="RANK", sizes=("WORLD_SIZE",), local="LOCAL_RANK", node="GROUP_RANK")
        if given.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            return _read(given, names, address=AGENT, port=PORT)
        return _read(given, names, address=given.get("MASTER_ADDR", ""), port=_port(given))
    if SLURM.rank in given and _slurm_task(given):
        hosts = given.get("SLURM_STEP_NODELIST") or given.get("SLURM_JOB_NODELIST") or given.get("SLURM_NODELIST", "")
        return _read(given, SLURM, address=given.get("MASTER_ADDR") or first_host(hosts), port=_port(given))
    for names in MPI:
        if names.rank in given:
            return _read(given, names, address=given.get("MASTER_ADDR", ""), port=_port(given))
    return Launch()


def _slurm_task(given: Mapping[str, str]) -> bool:
    """Whether srun started this process. The script of a job has the same variables, but runs once: it has no step."""
    return "SLURM_JOB_ID" not in given or "SLURM_STEP_ID" in given


def _read(given: Mapping[str, str], names: _Names, *, address: str, port: int) -> Launch:
    rank = _number(given, names.rank, 0)
    sizes = [_number(given, name, 1) for name in names.sizes if name in given]
    size = sizes[0] if sizes else 1
    if sizes and not rank < size:
        cure = "start all processes by one torchrun, srun or mpirun, or none of these variables"
        raise KitaeError(f"{names.rank} = {rank} is no process of {size} ({' or '.join(names.sizes)})", cure=cure)
    if size > 1 and not address:
        raise KitaeError(f"{size} processes were started, but nothing says where they meet", cure="set MASTER_ADDR to the host of rank 0")
    node = given.get(names.node, "") if names.node else ""
    return Launch(rank=rank, size=size, local_rank=_number(given, names.local, 0), node=node, address=address, port=port)


def _number(given: Mapping[str, str], name: str, default: int) -> int:
    text = given.get(name, str(default))
    if not re.fullmatch(r"\s*[0-9]{1,9}\s*", text):
        raise KitaeError(f'{name} = "{text}" is no number', cure="let torchrun, srun or mpirun set it, or unset it")
    return int(text)


def _port(given: Mapping[str, str]) -> int:
    """MASTER_PORT, or one that two jobs on a machine will hardly share."""
    if "MASTER_PORT" in given:
        return _number(given, "MASTER_PORT", PORT)
    job = re.sub(r"\D", "", given.get("SLURM_JOB_ID", ""))
    step = re.sub(r"\D", "", given.get("SLURM_STEP_ID", ""))
    return 15000 + (int(job) * 16 + int(step or 0)) % 15000 if job else PORT


def first_host(hosts: str) -> str:
    """The first name of Slurm's compressed list: "gpu[03-06,9]-ib,login1" begins with gpu03-ib."""
    first = re.match(r"(?:[^,\[\]]|\[[^\]]*\])*", hosts)
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0] if first else "").strip()
