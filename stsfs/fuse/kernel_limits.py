"""How much the kernel asks for at a time: raised where we may, said where we may not."""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger(__name__)

READ_AHEAD_KIB = 1024
"""One FUSE request of the largest size. More makes faults of random mappings fetch more for
nothing; less cuts a read of 256 KiB into several, one after the other."""


@dataclass(slots=True)
class KernelLimits:
    """What is in force for one mount."""

    read_ahead_kib: int = 128
    max_background: int = 12
    could_not: list[str] = field(default_factory=list)
    """One sentence for each thing that needed a right we lack."""


def raise_read_ahead(mount_path: str, wanted_kib: int, limits: KernelLimits) -> None:
    """Write the mount's read_ahead_kb, which takes root. Blocking, and short.

    Must not stat the mount from the task that answers its requests.
    """
    device = os.stat(mount_path).st_dev
    setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    try:
        limits.read_ahead_kib = int(setting.read_text())
        setting.write_text(str(wanted_kib))
        limits.read_ahead_kib = wanted_kib
    except OSError as exc:
        limits.could_not.append(
            f"The kernel's read-ahead stays at {limits.read_ahead_kib} KiB ({exc.strerror}); "
            f"root can raise it: echo {wanted_kib} > {setting}"
        )
        log.info(limits.could_not[-1])
