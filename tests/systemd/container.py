"""A booted container: a real systemd as its process 1, the network of the host."""

import contextlib
import os
import select
import signal
import subprocess
import time
from pathlib import Path

PATIENCE_S = 120.0
POLL_S = 0.2
"""Between looks at what nobody announces to the outside of the container."""

STARTING = "", "initializing", "starting", "offline", "unknown"


class Container:
    """systemd-nspawn on a root whose changes are thrown away; settings is its /etc/stsfs."""

    def __init__(self, root, settings):
        self.settings = settings
        self._console = settings.parent / "console"
        self._command = [
            "systemd-nspawn", "--quiet", "--boot", "--keep-unit", "--register=no",
            f"--directory={root}", "--volatile=overlay", "--console=read-only",
            "--bind=/dev/fuse", "--capability=CAP_SYS_ADMIN",
            f"--bind={settings}:/etc/stsfs", f"--machine=stsfs-test-{os.getpid()}",
        ]  # fmt: skip

    def __enter__(self):
        with open(self._console, "wb") as console:
            self._nspawn = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=console, stderr=console
            )
        try:
            self.wait_until_booted()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self._nspawn.send_signal(signal.SIGTERM)  # an orderly shutdown
        try:
            self._nspawn.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()

    def run(self, *command, check=True, **options):
        """Run a command as root inside; returns what it said."""
        return subprocess.run(
            ["nsenter", "--all", f"--target={self._init()}", "--", *map(str, command)],
            check=check,
            capture_output=True,
            timeout=PATIENCE_S,
            text=True,
            **options,
        )

    def output(self, *command):
        return self.run(*command).stdout.strip()

    def show(self, unit, name):
        """A property of a unit."""
        return self.output("systemctl", "show", "--property", name, "--value", unit)

    def journal(self, unit):
        return self.output("journalctl", "--unit", unit, "--output", "cat")

    def wait_until(self, fact, what):
        """Ask until it is so."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not fact():
            assert time.monotonic() < deadline_s, f"{what}\n{self._console.read_text()}"
            select.select([], [], [], POLL_S)

    def wait_until_booted(self):
        self.wait_until(self._is_booted, "the container does not come up")

    def reboot(self):
        """Shut down, and boot again; only the settings are what they were."""
        self.__exit__()
        self.__enter__()

    def _is_booted(self):
        assert self._nspawn.poll() is None, self._console.read_text()
        asked = ("systemctl", "is-system-running")
        return bool(self._init()) and self.run(*asked, check=False).stdout.strip() not in STARTING

    def _init(self):
        """The pid of its process 1, seen from here; empty while there is none."""
        for task in Path(f"/proc/{self._nspawn.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):
                for child in (task / "children").read_text().split():
                    if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                        return child
        return ""
