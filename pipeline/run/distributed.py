"""Train on several devices, of one machine or of many: Keras's distribution over JAX's runtime.

Every device holds the whole network and works on its shard of each batch. JAX compiles one program
over all of them, so gradients and batch norm's statistics are those of the whole batch. The primary
process evaluates and writes, by a replica of the network on one device, so that what it writes is
what a run on one device would write. The others only train.
"""

import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.backend import silence
from pipeline.errors import UserError
from pipeline.io.shard import Shard

if TYPE_CHECKING:
    import keras

HEARTBEAT_SECONDS = 20
"""A process that gives no sign of life for so long counts as lost."""
SLURM_TASKS, SLURM_TASK = "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"
"""What Slurm tells each process that ``srun`` starts."""


LOST = (
    "error: training stopped, since another process of the run ended; start all of them again, "
    "with -m DIR to resume"
)


TRANSPORT = ("Gloo", "NCCL", "coordination service", "UNAVAILABLE", "ABORTED")
"""One of these is in what JAX says where another process is gone."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, as one of them sees the group.

    Args:
        processes: How many there are.
        number: Of this one, from 0; that is the primary.
        coordinator: HOST:PORT of the first; None leaves it to JAX, which knows Slurm's variables.
    """

    processes: int = 1
    number: int = 0
    coordinator: str | None = None

    @property
    def is_primary(self) -> bool:
        """Whether this process evaluates and writes."""
        return self.number == 0

    def initialize(self) -> None:
        """Wait until all processes are there; before Keras is imported.

        Raises:
            UserError: The backend has no such thing, or they do not come together.
        """
        if self.processes == 1:
            return
        if os.environ.get("KERAS_BACKEND") != "jax":
            raise UserError(
                "TensorFlow trains here in one process alone; "
                "pip install jax and set KERAS_BACKEND=jax for several"
            )
        import jax

        jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM
        _dump_no_core()
        try:
            jax.distributed.initialize(
                self.coordinator,
                None if self.coordinator is None else self.processes,
                None if self.coordinator is None else self.number,
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            )
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"the {self.processes} processes did not come together "
                f"({str(error).splitlines()[0]}); start each with its own --process-id, and the "
                "same --coordinator, which all can reach"
            ) from error

    @contextmanager
    def ends_together(self) -> Iterator[None]:
        """End this process with one line where another one of the run has ended.

        JAX reports that by errors of several kinds, from wherever it notices first. Where the
        primary is the one that ended, JAX may end this one before it gets here, in
        its own words.
        """
        try:
            yield
        except (UserError, OSError):
            raise
        except Exception as error:
            if self.processes == 1:
                raise
            if any(word in str(error) for word in TRANSPORT):
                print(f"{LOST} ({str(error).splitlines()[0][:100]})", file=sys.stderr)
            else:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)  # JAX would wait for the others, and then abort

    def barrier(self, settings: str = "") -> None:
        """Wait until all processes have come here, with the same settings.

        Raises:
            UserError: This one has others than the first.
        """
        if self.processes == 1:
            return
        from jax.experimental import multihost_utils

        try:
            multihost_utils.sync_global_devices(settings)
        except AssertionError as error:
            raise UserError(
                "this process has another recipe, setting or build of the data than the first; "
                "start all with the same command"
            ) from error


def _dump_no_core() -> None:
    """Keep JAX, where it aborts, from leaving the process's memory on the disk."""
    with suppress(ImportError):  # on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def find_process_group(
    processes: int | None,
    number: int | None,
    coordinator: str | None,
    environment: Mapping[str, str],
) -> ProcessGroup:
    """Return the group that the command line names, or else Slurm; by default one process.

    Raises:
        UserError: They contradict themselves.
    """
    if processes is None and int(environment.get(SLURM_TASKS, 1)) > 1:
        return ProcessGroup(int(environment[SLURM_TASKS]), int(environment[SLURM_TASK]))
    if None in (processes, number, coordinator) and {processes, number, coordinator} != {None}:
        raise UserError("--processes, --process-id and --coordinator go together; give all three")
    if processes is None or number is None:
        return ProcessGroup()
    if number >= processes:
        raise UserError(f"--process-id counts from 0, so of {processes} it is below {processes}")
    return ProcessGroup(processes, number, coordinator)


class DataParallelism:
    """The network replicated over the devices of a process group; after Keras is imported.

    Args:
        group: Its processes, initialized.
        batch_size: Images a step, over all devices.

    Raises:
        UserError: The devices do not divide the batch.
    """

    def __init__(self, group: ProcessGroup, batch_size: int) -> None:
        import keras

        self.group = group
        with silence():  # JAX's transport reports when it first connects
            group.barrier()
        self.devices = keras.distribution.list_devices()
        self._distribution = None
        self._batch_size = batch_size
        self._on_jax = keras.backend.backend() == "jax"
        # pairs of images are mixed, so no shard may be odd
        multiple = int(np.lcm(len(self.devices), 2 * group.processes))
        if self._on_jax and len(self.devices) > 1:
            if batch_size % multiple:
                raise UserError(
                    f"{len(self.devices)} devices in {group.processes} processes cannot share "
                    f"batches of {batch_size}; give -b a multiple of {multiple}"
                )
            self._distribution = keras.distribution.DataParallel(
                devices=self.devices, auto_shard_dataset=False
            )
        self._replica: keras.Model | None = None

    @property
    def shard(self) -> Shard | None:
        """The shard of each batch that this process makes; None on TensorFlow.

        An epoch's last batch is padded to a whole one, or JAX would compile once more for it.
        """
        if not self._on_jax:
            return None
        return Shard(self.group.number, self.group.processes, self._batch_size)

    @property
    def is_distributed(self) -> bool:
        """Whether there are several devices to train on."""
        return self._distribution is not None

    @property
    def on_cpu(self) -> bool:
        """Whether no device is an accelerator."""
        return all(device.startswith("cpu") for device in self.devices)

    def scope(self) -> AbstractContextManager[None]:
        """Return the context to build, restore and train the network in, in all processes alike."""
        return self._distribution.scope() if self._distribution else nullcontext()

    def keep_replica(self, replica: "keras.Model") -> None:
        """Evaluate and save by ``replica``, a compiled model of the same make, from now on."""
        self._replica = replica

    @contextmanager
    def on_one_device(self, model: "keras.Model") -> Iterator["keras.Model"]:
        """Yield the model to evaluate and save: the replica, brought up to date."""
        import keras

        if self._replica is None:
            yield model
            return
        for ours, theirs in zip(_state(self._replica), _state(model), strict=True):
            ours.assign(np.asarray(theirs.value))
        keras.distribution.set_distribution(None)
        try:
            yield self._replica
        finally:
            keras.distribution.set_distribution(self._distribution)


def _state(model: "keras.Model") -> list["keras.Variable"]:
    return [*model.weights, *model.optimizer.variables]
