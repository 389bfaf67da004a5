"""A small Debian with systemd and stsfs in it, made once and kept in a cache directory."""

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
CACHE = Path(os.environ.get("STSFS_SYSTEMD_CACHE", "/var/cache/stsfs-systemd"))
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")

SUITE = "bookworm"
PACKAGES = [
    "systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "fuse3", "samtools",
    "ca-certificates", "python3", "python3-venv", "python3-dev", "gcc", "libc6-dev",
    "libfuse3-dev", "pkg-config",
]  # fmt: skip
VENV = "/opt/stsfs"
BOOT_INSTANCE = "boot"
"""The instance of the unit that is enabled."""


def prepare():
    """The root directory, with this checkout installed as an administrator would install it."""
    root = CACHE / SUITE
    _once(root / ".debian", " ".join(PACKAGES), lambda: _debootstrap(root))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    needed = ["setuptools>=77", *project["dependencies"]]
    _once(root / ".packages", " ".join(needed), lambda: _make_venv(root, needed))
    _install(root)
    return root


def _once(stamp, text, make):
    """Call make unless it was called for the same text before."""
    if not stamp.exists() or stamp.read_text() != text:
        make()
        stamp.write_text(text)


def _debootstrap(root):
    shutil.rmtree(root, ignore_errors=True)
    CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = ["debootstrap", "--variant=minbase", SUITE, root]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    # Not by debootstrap, which knows nothing of virtual packages.
    _inside(root, "apt-get", "install", "-qq", "--yes", "--no-install-recommends", *PACKAGES)
    shutil.copy(AUTHORITIES, root / AUTHORITIES.relative_to("/"))  # this machine's, for pip


def _make_venv(root, needed):
    _inside(root, "python3", "-m", "venv", "--clear", VENV)
    _inside(root, f"{VENV}/bin/pip", "install", "-qq", *needed)


def _install(root):
    """The package, its two commands where systemd and mount(8) look for them, the units."""
    source = root / "opt/source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    shutil.copytree(
        REPOSITORY / "stsfs", source / "stsfs", ignore=shutil.ignore_patterns("__pycache__")
    )
    offline = ["--no-index", "--no-build-isolation", "--no-deps", "--force-reinstall"]
    _inside(root, f"{VENV}/bin/pip", "install", "-qq", *offline, "/opt/source")
    _link(root / "usr/local/bin/stsfs", f"{VENV}/bin/stsfs")
    _link(root / "usr/sbin/mount.stsfs", f"{VENV}/bin/mount.stsfs")
    units = root / "etc/systemd/system"
    shutil.copy(REPOSITORY / "systemd/stsfs@.service", units)
    shutil.copy(REPOSITORY / "systemd/user/stsfs@.service", root / "etc/systemd/user")
    wanted = units / "multi-user.target.wants"
    wanted.mkdir(exist_ok=True)
    _link(wanted / f"stsfs@{BOOT_INSTANCE}.service", "/etc/systemd/system/stsfs@.service")


def _link(path, target):
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _inside(root, *command):
    quiet = {
        "DEBIAN_FRONTEND": "noninteractive",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    subprocess.run(
        ["chroot", root, *command], check=True, env=os.environ | quiet, stdout=subprocess.DEVNULL
    )
