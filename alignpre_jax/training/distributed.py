"""This module lets several hosts join, agree on when to stop, and leave when one of them has vanished."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from alignpre_jax.foundation import UserError
from alignpre_jax.training.faults import HOST_LOST

# The variables in which a scheduler says that there are several processes; JAX reads the rest by itself.
_SEVERAL = {"SLURM_NTASKS": 1, "OMPI_COMM_WORLD_SIZE": 1, "TPU_WORKER_HOSTNAMES": 0, "MEGASCALE_NUM_SLICES": 1}
# Codes of errors of the program, which every process meets alike; a lost connection has other codes.
_OF_THE_PROGRAM = ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED", "NOT_FOUND", "OUT_OF_RANGE")
# Where a program is dispatched synchronously, a failed collective raises a ValueError with such a code in front.
_OF_THE_CONNECTION = ("UNKNOWN:", "UNAVAILABLE:", "INTERNAL:", "ABORTED:", "CANCELLED:", "DEADLINE_EXCEEDED:")


def initialize(
    coordinator: str = "", processes: int = 0, process: int = -1, *, heartbeat_seconds: int = 100
) -> tuple[int, int]:
    """Joins the processes of a run, before anything else touches JAX; returns (this process, how many there are).

    Args:
      coordinator: HOST:PORT of process 0. Default: $ALIGNPRE_COORDINATOR, or what the TPU, Slurm, MPI or Kubernetes
        environment says; without any of these there is one process, and nothing is done.
      processes: how many processes there are; default $ALIGNPRE_PROCESSES.
      process: which of them this is, from 0; default $ALIGNPRE_PROCESS.
      heartbeat_seconds: the silence after which a process counts as vanished, if no broken connection tells earlier.

    Raises:
      UserError: only some of the three are given, or the other processes cannot be reached.
    """
    if jax.distributed.is_initialized():
        return jax.process_index(), jax.process_count()
    env = os.environ
    coordinator = coordinator or env.get("ALIGNPRE_COORDINATOR", "")
    processes = processes or int(env.get("ALIGNPRE_PROCESSES", "0"))
    process = process if process >= 0 else int(env.get("ALIGNPRE_PROCESS", "-1"))
    given = (bool(coordinator), processes > 0, process >= 0)
    if any(given) and not (all(given) and process < processes):
        raise UserError(
            f"coordinator {coordinator!r}, {processes} processes and number {process} do not make a run",
            where="ALIGNPRE_COORDINATOR, ALIGNPRE_PROCESSES, ALIGNPRE_PROCESS",
            fix="give all three: HOST:PORT of process 0, how many there are, and which one this is, from 0",
        )
    if not any(given) and not _has_cluster():
        return 0, 1
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    where = {"coordinator_address": coordinator, "num_processes": processes, "process_id": process}
    try:
        jax.distributed.initialize(**(where if any(given) else {}), heartbeat_timeout_seconds=heartbeat_seconds)  # type: ignore[arg-type]
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"the processes of the run could not be joined: {str(error).splitlines()[0]}",
            where=coordinator or "the cluster's environment",
            fix="start all processes at about the same time, and see that they reach the coordinator's port",
        ) from error
    return jax.process_index(), jax.process_count()


def _has_cluster() -> bool:
    if os.environ.get("JAX_PLATFORMS", "").split(",")[0] == "cpu":
        return False
    for name, one in _SEVERAL.items():
        value = os.environ.get(name, "")
        if value and (int(value) > one if one else "," in value):
            return True
    return any(Path(device).exists() for device in ("/dev/accel0", "/dev/vfio/0"))  # a TPU VM knows its neighbours


def put_part(part: np.ndarray, sharding: NamedSharding, rows: int) -> jax.Array:
    """Returns the global array of `rows` rows whose part on this host is `part`.

    The transfer is intended, so it is allowed even inside a transfer guard: with several processes JAX takes it for an
    accident.
    """
    with jax.transfer_guard("allow"):
        return jax.make_array_from_process_local_data(sharding, part, (rows, *part.shape[1:]))


def first_says(value: bool) -> bool:
    """Returns on every process what the first one says; all of them must call this at the same point.

    What a process sees of a mounted bucket decides nothing that takes all processes: another may not see it yet.
    """
    with jax.transfer_guard("allow"):
        return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


class Agreement:
    """An `Agreement` makes what any host wants known to all hosts at the same step.

    On one host the answer is about this step. On several hosts, each step posts the host's wishes as a tiny array and
    reads the maximum of the wishes that were posted at the step before, so that no step waits for the network.
    """

    def __init__(self, mesh: Mesh):
        self._mesh = mesh
        self._posted: jax.Array | None = None
        spread = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        whole = NamedSharding(mesh, PartitionSpec())
        self._spread = spread
        self._most = jax.jit(lambda wishes: jnp.max(wishes, axis=0), in_shardings=spread, out_shardings=whole)

    def __call__(self, step: int, *, stop: bool, save: bool) -> tuple[bool, bool]:
        """Returns (stop, save) as agreed; a preemption notice that JAX got from the scheduler counts as stop."""
        if jax.process_count() == 1:
            return stop, save
        stop = stop or _preempted(step)
        wishes = np.tile(np.array([[stop, save]], np.int32), (self._mesh.local_mesh.devices.size, 1))
        before = self._posted
        self._posted = self._most(put_part(wishes, self._spread, self._mesh.devices.size))
        if before is None:
            return False, False
        agreed = jax.device_get(before)
        return bool(agreed[0]), bool(agreed[1])


def _preempted(step: int) -> bool:
    return bool(
        getattr(jax.config, "jax_enable_preemption_service", False)
    ) and multihost_utils.reached_preemption_sync_point(step)


@contextlib.contextmanager
def others_may_vanish() -> Iterator[None]:
    """Ends this process with status 77 if, on several hosts, a lost connection raises an error inside this context.

    It ends at once, because leaving in the usual way would wait for the process that is gone. (Where this process waits
    for the others inside a checkpoint's barrier, no error comes: JAX aborts it, with status 134, once the heartbeats
    are missed.)
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError, TimeoutError) as error:
        if jax.process_count() == 1 or not _is_lost_connection(error):
            raise
        print(
            f"process {jax.process_index()} of {jax.process_count()}: lost the connection to another process of the "
            f"run, which has vanished or failed; see its log. Everything up to the last checkpoint is saved: start "
            f"all processes again.\n  {str(error).splitlines()[0][:500]}",
            file=sys.stderr,
            flush=True,
        )
        os._exit(HOST_LOST)


def _is_lost_connection(error: Exception) -> bool:
    text = str(error)
    if isinstance(error, jax.errors.JaxRuntimeError):
        return not text.startswith(_OF_THE_PROGRAM) and "RESOURCE_EXHAUSTED" not in text
    return isinstance(error, TimeoutError) or text.startswith(_OF_THE_CONNECTION)  # a checkpoint's barrier times out
