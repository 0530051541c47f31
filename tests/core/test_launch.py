"""Where a process stands, by the variables of torchrun, Slurm and MPI."""

import pytest

from kitae.core.errors import KitaeError
from kitae.core.launch import AGENT, Launch, first_host, launch

SLURM = {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_JOB_NODELIST": "gpu[03-06],login"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Launch()),
        (
            {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "GROUP_RANK": "1", "TORCHELASTIC_USE_AGENT_STORE": "True"}
            | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "MASTER_ADDR": "h"},
            Launch(rank=2, size=4, local_rank=0, node="1", address=AGENT),
        ),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "h", "MASTER_PORT": "1"}, Launch(size=2, address="h", port=1)),
        (SLURM, Launch(rank=3, size=8, local_rank=1, node="1", address="gpu03", port=29500)),
        (
            SLURM | {"SLURM_JOB_ID": "70001", "SLURM_STEP_ID": "2", "MASTER_ADDR": "10.0.0.1"},
            Launch(rank=3, size=8, local_rank=1, node="1", address="10.0.0.1", port=15000 + (70001 * 16 + 2) % 15000),
        ),
        (
            SLURM | {"MASTER_PORT": "4000", "SLURM_STEP_NODELIST": "b7"},
            Launch(rank=3, size=8, local_rank=1, node="1", address="b7", port=4000),
        ),
        (SLURM | {"SLURM_JOB_ID": "70001"}, Launch()),  # the job's script itself, not a task of it
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1"}, Launch()),  # an interactive shell of such a job
        (
            {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1", "MASTER_ADDR": "h"},
            Launch(rank=1, size=2, local_rank=1, address="h"),
        ),
        ({"PMI_RANK": "0", "PMI_SIZE": "2", "MPI_LOCALRANKID": "0", "MASTER_ADDR": "h"}, Launch(rank=0, size=2, address="h")),
    ],
)
def test_the_place_of_a_process(environment: dict[str, str], expected: Launch) -> None:
    assert launch(environment) == expected


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "4", "WORLD_SIZE": "4"}, "RANK = 4 is no process of 4"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, 'RANK = "one" is no number'),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, "where they meet"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "where they meet"),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, "MASTER_ADDR"),
    ],
)
def test_variables_that_contradict_each_other(environment: dict[str, str], message: str) -> None:
    with pytest.raises(KitaeError, match=message):
        launch(environment)


@pytest.mark.parametrize(
    ("hosts", "first"),
    [("a", "a"), ("gpu[03-06,9],x", "gpu03"), ("gpu[7,9]", "gpu7"), ("r[1-2]n[05-08]-ib,b", "r1n05-ib"), ("b,a[1-2]", "b"), ("", "")],
)
def test_the_first_of_a_list_of_hosts(hosts: str, first: str) -> None:
    assert first_host(hosts) == first
