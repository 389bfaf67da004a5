"""A service made from the unit: its settings, its token, and what is true of it inside."""

import json
import secrets

from stsfs.demo.dataset import dataset
from tests.systemd.debian_root import BOOT_INSTANCE


class Desk:
    """Sets services up; all of them show one data set."""

    def __init__(self, stage, settings):
        self.stage, self.settings = stage, settings
        self.folder = stage.folder()
        self.data = dataset.build(self.folder.path)
        self.container = None

    def open(self, container, boot):
        """Go on when the container runs."""
        self.container, self.boot = container, boot

    def prepare(self, name):
        return Service(self, name, "/mnt" if name == BOOT_INSTANCE else f"/srv/{name}")

    def new_token(self):
        token = f"token-{secrets.token_hex(16)}"
        self.stage.state.add_token(self.stage.user, token)
        return token


class Service:
    """`stsfs@NAME.service`."""

    def __init__(self, desk, name, path):
        self.desk, self.name, self.path = desk, name, path
        self.unit = f"stsfs@{name}.service"
        self.token_file = f"/etc/stsfs/{name}.token"
        self._token_here = desk.settings / f"{name}.token"
        self.token = desk.new_token()
        self._write_token()
        self.configure()

    def configure(self, *options):
        """Write the settings."""
        stage = self.desk.stage
        words = [
            "--endpoint-url", stage.gate.url, "--synapse-endpoint", stage.synapse.url, *options
        ]  # fmt: skip
        (self.desk.settings / f"{self.name}.conf").write_text(
            f"LOCATION={self.desk.folder.syn_id}\n"
            f"MOUNTPOINT={self.path}\nOPTIONS={' '.join(words)}\n"
        )

    def rotate_token(self):
        """Put a new token into the file, and have Synapse refuse the old one."""
        old, self.token = self.token, self.desk.new_token()
        self._write_token()
        self.desk.stage.state.revoke_token(old)

    def spoil_token(self):
        self._token_here.write_text("a-token-of-nobody")

    def remove_token(self):
        self._token_here.unlink()

    def start(self, *, check=True):
        """Start it; returns once it says that it is ready, or has failed."""
        self.run("mkdir", "-p", self.path)
        return self.run("systemctl", "start", self.unit, check=check)

    def run(self, *command, check=True, **options):
        return self.desk.container.run(*command, check=check, **options)

    def show(self, name):
        return self.desk.container.show(self.unit, name)

    def journal(self):
        return self.desk.container.journal(self.unit)

    def status(self):
        return json.loads(self.run("stsfs", "status", "--json", self.path).stdout)

    def drop_in(self, text):
        """Settings of the unit for the time the container runs."""
        directory = f"/run/systemd/system/{self.unit}.d"
        self.run("mkdir", "-p", directory)
        self.run("tee", f"{directory}/test.conf", input=text)
        self.run("systemctl", "daemon-reload")

    def checksums(self):
        """`sha256sum` of every file, run inside; by path."""
        paths = [f"{self.path}/{file.path}" for file in self.desk.data.files]
        lines = [
            line.split(maxsplit=1) for line in self.run("sha256sum", *paths).stdout.splitlines()
        ]
        return {path.removeprefix(f"{self.path}/"): digest for digest, path in lines}

    def expected_checksums(self):
        return {file.path: file.sha256 for file in self.desk.data.files}

    def is_mounted(self):
        return self.run("mountpoint", "--quiet", self.path, check=False).returncode == 0

    def processes(self):
        """Processes that have the mount path among their arguments."""
        return self.run("pgrep", "--full", "--", self.path, check=False).stdout.split()

    def put_away(self):
        self.run("systemctl", "stop", self.unit, check=False)
        self.run("systemctl", "reset-failed", self.unit, check=False)
        assert not self.is_mounted()

    def _write_token(self):
        self._token_here.touch(mode=0o600)
        self._token_here.write_text(f"{self.token}\n")
