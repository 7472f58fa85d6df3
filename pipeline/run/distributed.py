"""Train on several devices, of one machine or of many: Keras's distribution over JAX's runtime.

Every device holds the whole network and works on its shard of each batch. JAX compiles one program
over all of them, so gradients and batch norm's statistics are those of the whole batch. The primary
process evaluates and writes, by a replica of the network on one device, so that what it writes is
what a run on one device would write. The others only train.
"""

import hashlib
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from urllib.parse import urlsplit

import numpy as np

from pipeline.command_line import SCRIPTS
from pipeline.errors import UserError, first_line, is_out_of_memory
from pipeline.printing import silence
from pipeline.run.rendezvous import rendezvous

HEARTBEAT_SECONDS = 20
"""A machine silent for so long counts as lost."""
INITIALIZATION_SECONDS = 300
"""For JAX to connect the processes that have met."""
NOTICE_SECONDS = 3
"""Another process's end may cause an error here before ``rendezvous`` notices that end."""
SLURM_TASKS, SLURM_NODES = "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NODELIST"
SLURM_NUMBERS = (SLURM_TASKS, "SLURM_PROCID", "SLURM_JOB_ID", "SLURM_LOCALID")
"""Set by ``srun`` for each process."""
SLURM_PORTS = range(61_440, 65_536)
"""Chosen from by the job's number, so that two jobs on a node do not meet."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run."""

    processes: int = 1
    process_id: int = 0
    """Of this process; 0 is the primary."""
    coordinator: tuple[str, int] | None = None
    """Host and port of the primary; None for one process."""
    gpu: int | None = None
    """This process's GPU, of those that it sees; None: all."""

    @property
    def is_primary(self) -> bool:
        """Whether this process evaluates and writes."""
        return self.process_id == 0

    @contextmanager
    def connected(self, settings: str) -> Iterator[None]:
        """Wait for all processes, and end with the first that fails; before Keras is imported.

        Args:
            settings: Must be equal in all.

        Raises:
            UserError: The backend is not JAX, or they do not meet.
        """
        if self.processes == 1:
            yield
            return
        if os.environ.get("KERAS_BACKEND") != "jax" or find_spec("jax") is None:
            raise UserError(
                "several processes need JAX; pip install jax and set KERAS_BACKEND=jax, or for "
                f"independent runs under srun unset {SLURM_TASKS}"
            )
        import jax  # before they meet: from a cold network disk it may take minutes

        software = f"{code_hash()} {jax.__version__} {version('keras')}"
        together = f"{software} {settings}"
        with rendezvous(self.coordinator, self.process_id, self.processes, together):
            self._initialize_jax()
            try:
                yield
            except Exception as error:
                if isinstance(error, UserError | OSError) or is_out_of_memory(error):
                    raise
                time.sleep(NOTICE_SECONDS)
                traceback.print_exc()
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(1)  # JAX would wait for the others, and then abort

    def _initialize_jax(self) -> None:
        import jax

        with suppress(ImportError):  # on Windows
            import resource

            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # where JAX aborts, it dumps no core
        jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM
        with suppress(AttributeError):  # older ones lack it; a note on any proxy, no_proxy too
            jax.config.update("jax_check_proxy_envs", False)
        host, port = self.coordinator
        try:
            jax.distributed.initialize(
                f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
                self.processes,
                self.process_id,
                local_device_ids=self.gpu,
                cluster_detection_method="deactivate",  # detection would give each one GPU
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                initialization_timeout=INITIALIZATION_SECONDS,
            )
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"JAX did not bring the {self.processes} processes together "
                f"({first_line(error)}); start all again, with another --coordinator"
            ) from error


def find_process_group(
    processes: int | None,
    process_id: int | None,
    coordinator: str | None,
    environment: Mapping[str, str],
) -> ProcessGroup:
    """Return the group of the command line, or else of Slurm, or else of one process.

    Raises:
        UserError: Values are missing, or contradict each other.
    """
    missing = [value is None for value in (processes, process_id, coordinator)]
    if all(missing):
        in_slurm = environment.get(SLURM_TASKS, "1") != "1"
        return _slurm_group(environment) if in_slurm else ProcessGroup()
    if any(missing):
        raise UserError("--processes, --process-id and --coordinator go together; give all three")
    if not 0 <= process_id < processes:
        raise UserError(
            f"--process-id counts from 0, so of {processes} it is below {processes}; "
            "give each its own"
        )
    return ProcessGroup(processes, process_id, _host_and_port(coordinator))


def _host_and_port(coordinator: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{coordinator}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not (host and port) or parts.netloc != coordinator or "@" in coordinator:
        raise UserError(
            f"--coordinator {coordinator!r} is not HOST:PORT; name the host of process 0 and a "
            "port from 1 to 65535, as node1:12345 or [::1]:12345"
        )
    return host, port


def _slurm_group(environment: Mapping[str, str]) -> ProcessGroup:
    """Return the group that ``srun`` started, a task per GPU or node; the first node has task 0."""
    try:
        processes, process_id, job, local = (int(environment[name]) for name in SLURM_NUMBERS)
        first = re.match(r"(?:[^,[]|\[[^]]*\])+", environment[SLURM_NODES])[0]
        host = re.sub(r"\[(\d+)[^]]*\]", r"\1", first)
    except (KeyError, ValueError, TypeError):
        process_id = processes = 0
    if not 0 <= process_id < processes:
        raise UserError(
            f"Slurm's variables do not name this process's place in its step; start with srun, "
            f"which sets {', '.join(SLURM_NUMBERS)} and {SLURM_NODES}, or unset {SLURM_TASKS}"
        )
    port = SLURM_PORTS[job % len(SLURM_PORTS)]
    sees_its_own = "," not in environment.get("CUDA_VISIBLE_DEVICES", ",")  # --gpus-per-task
    alone = environment.get("SLURM_STEP_TASKS_PER_NODE") == f"1(x{processes})"
    by_hand = bool(environment.get("JAX_LOCAL_DEVICE_IDS"))
    gpu = None if sees_its_own or alone or by_hand else local
    return ProcessGroup(processes, process_id, (host, port), gpu)


def code_hash() -> str:
    """Return a hash of ``pipeline/`` and the script that trains, 8 hexadecimal digits.

    It tells versions of this project apart.
    """
    files = sorted([SCRIPTS / "model_train.py", *(SCRIPTS / "pipeline").rglob("*.py")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]


class DataParallelism:
    """The network replicated over the devices of a process group; after Keras is imported.

    Args:
        group: Its processes, initialized.
        batch_size: Images a step, over all devices.

    Raises:
        UserError: The devices do not divide the batch, or a shard is odd.
    """

    def __init__(self, group: ProcessGroup, batch_size: int) -> None:
        import keras

        if group.processes > 1:
            from jax.experimental import multihost_utils

            with silence(1, 2):  # JAX's transport reports when it first connects
                multihost_utils.sync_global_devices("")
        on_jax = keras.backend.backend() == "jax"
        self.devices = keras.distribution.list_devices()
        self.on_cpu = all(device.startswith("cpu") for device in self.devices)
        self.is_distributed = on_jax and len(self.devices) > 1
        size = batch_size // group.processes
        first = group.process_id * size
        # JAX would compile once more for a smaller last batch, so that is padded to a whole one.
        self.shard = range(first, first + size) if on_jax else None
        """The positions in each batch whose images this process makes; None on TensorFlow: all."""
        self._distribution = None
        if self.is_distributed:
            # pairs of images are mixed, so no shard may be odd
            multiple = int(np.lcm(len(self.devices), 2 * group.processes))
            if batch_size % multiple:
                raise UserError(
                    f"{len(self.devices)} devices in {group.processes} processes cannot share "
                    f"batches of {batch_size}; begin a fresh run with -b a multiple of {multiple}, "
                    "or use fewer devices (CUDA_VISIBLE_DEVICES)"
                )
            self._distribution = keras.distribution.DataParallel(
                devices=self.devices, auto_shard_dataset=False
            )

    def scope(self) -> AbstractContextManager[None]:
        """Return the context in which all processes build, restore and train the network."""
        return self._distribution.scope() if self._distribution else nullcontext()
