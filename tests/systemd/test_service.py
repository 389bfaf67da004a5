"""The units under a real systemd, from boot to shutdown."""

import pytest

from stsfs.demo.fake_synapse.sts import LIFETIME_S

pytestmark = pytest.mark.systemd


@pytest.fixture
def brief_sessions(desk):
    """AWS credentials that live for seconds."""
    desk.stage.vendor.lifetime_s = 8.0
    yield
    desk.stage.vendor.lifetime_s = LIFETIME_S


def test_an_enabled_service_is_mounted_after_boot_and_after_a_reboot(desk):
    boot = desk.boot
    for reboots in (False, True):
        if reboots:
            desk.container.reboot()
        desk.container.wait_until(lambda: boot.show("ActiveState") == "active", "not started")
        assert boot.checksums() == boot.expected_checksums()


def test_a_service_mounts_with_its_credential_and_tools_read(desk, service):
    service.start()
    assert service.show("ActiveState") == "active"
    assert service.status()["credentials"]["source"].startswith("Synapse STS")
    assert service.checksums() == service.expected_checksums()
    facts = desk.data.facts
    for sample, count in facts.reads_in_region.items():
        bam = f"{service.path}/cohort/{sample}.bam"
        counted = service.run("samtools", "view", "-c", bam, facts.region).stdout
        assert int(counted) == count


def test_systemctl_status_says_what_the_mount_does(desk, service):
    service.start()
    said = service.show("StatusText")
    assert said.startswith(f"{desk.folder.syn_id}; credentials until ")
    assert "0 open files" in said


def test_the_token_is_in_no_argument_and_no_variable_of_the_service(service):
    service.start()
    pid = service.show("MainPID")
    for name in ("cmdline", "environ"):
        assert service.token not in service.run("cat", f"/proc/{pid}/{name}").stdout
    assert service.token not in service.run("systemctl", "show", service.unit).stdout
    assert service.token not in service.journal()


def test_a_new_token_in_the_file_is_used_by_the_next_renewal(desk, service, brief_sessions):
    """With --token-file: no restart, and no reader notices."""
    service.configure("--token-file", service.token_file)
    service.start()
    service.rotate_token()
    renewals = service.status()["credentials"]["renewals"]
    desk.stage.vendor.wait_for(desk.stage.vendor.vended + 2)
    credentials = service.status()["credentials"]
    assert credentials["renewals"] > renewals
    assert credentials["last_error"] == ""
    assert service.checksums() == service.expected_checksums()
    assert service.show("NRestarts") == "0"


def test_a_killed_daemon_comes_back_with_the_token_that_is_there_now(desk, service):
    """The restart clears the dead mount away, and loads the credential again."""
    service.drop_in("[Service]\nRestartSec=1\n")
    service.start()
    service.rotate_token()
    first = service.show("MainPID")
    service.run("systemctl", "kill", "--signal=SIGKILL", "--kill-who=main", service.unit)
    desk.container.wait_until(
        lambda: (
            service.show("ActiveState") == "active" and service.show("MainPID") not in ("0", first)
        ),
        "the service does not come back",
    )
    assert service.checksums() == service.expected_checksums()
    assert f"cleared a dead mount away from {service.path}" in service.journal()
    assert service.run("findmnt", "--noheadings", service.path).stdout.count("\n") == 1


def test_a_daemon_that_hangs_is_ended_by_the_watchdog_and_comes_back(desk, service):
    service.drop_in("[Service]\nRestartSec=1\nWatchdogSec=10\nTimeoutAbortSec=5\n")
    service.start()
    pinged = service.show("WatchdogTimestampMonotonic")
    desk.container.wait_until(
        lambda: service.show("WatchdogTimestampMonotonic") != pinged, "no ping"
    )
    service.run("systemctl", "kill", "--signal=SIGSTOP", "--kill-who=main", service.unit)
    desk.container.wait_until(
        lambda: service.show("ActiveState") == "active" and service.show("NRestarts") == "1",
        "the service does not come back",
    )
    assert "Watchdog timeout" in service.journal()
    assert service.checksums() == service.expected_checksums()


def test_stop_ends_cleanly(service):
    """No mount, no process, exit code 0; also with a file open."""
    service.start()
    holder = f"exec 3<{service.path}/README.md; systemctl stop {service.unit}"
    service.run("sh", "-c", holder)
    assert not service.is_mounted()
    assert service.processes() == []
    assert [service.show(name) for name in ("ActiveState", "Result", "ExecMainStatus")] == [
        "inactive",
        "success",
        "0",
    ]


def test_a_token_that_synapse_rejects_is_not_tried_again(service):
    service.spoil_token()
    assert service.start(check=False).returncode != 0
    assert [service.show(name) for name in ("ActiveState", "ExecMainStatus", "NRestarts")] == [
        "failed",
        "11",
        "0",
    ]
    assert "Synapse rejects the token" in service.journal()


def test_a_location_without_a_token_needs_no_token_file(desk, service):
    """The command then says that there is no token; systemd does not refuse before."""
    service.remove_token()
    service.start(check=False)
    assert service.show("ExecMainStatus") == "10"


def test_a_line_in_fstab_mounts(desk, service):
    """Through the helper mount.stsfs; `mount -a` sees what is mounted already."""
    stage, path = desk.stage, service.path
    options = (
        f"ro,_netdev,nofail,allow_other,token_file={service.token_file},"
        f"endpoint_url={stage.gate.url},synapse_endpoint={stage.synapse.url}"
    )
    service.run("mkdir", "-p", path)
    line = f"{desk.folder.syn_id} {path} stsfs {options} 0 0\n"
    service.run("tee", "-a", "/etc/fstab", input=line)
    try:
        service.run("mount", "-a")
        assert service.checksums() == service.expected_checksums()
        service.run("mount", "-a")
        assert service.run("findmnt", "--noheadings", path).stdout.count("\n") == 1
        service.run("umount", path)
        desk.container.wait_until(lambda: service.processes() == [], "the daemon lives on")
    finally:
        service.run("sed", "-i", "/ stsfs /d", "/etc/fstab")


def test_the_user_unit_mounts_for_a_user_without_a_session(desk, service):
    """Root's own user manager here: the device belongs to root in the container."""
    service.configure("--token-file", service.token_file)
    service.run("mkdir", "-p", "/root/.config/stsfs", service.path)
    service.run("cp", f"/etc/stsfs/{service.name}.conf", "/root/.config/stsfs/")
    service.run("loginctl", "enable-linger", "root")
    as_user = ["env", "XDG_RUNTIME_DIR=/run/user/0", "systemctl", "--user"]
    desk.container.wait_until(
        lambda: service.run(*as_user, "is-system-running", check=False).stdout.strip() == "running",
        "no user manager",
    )
    service.run(*as_user, "start", service.unit)
    assert service.checksums() == service.expected_checksums()
    service.run(*as_user, "stop", service.unit)
    assert service.processes() == []
    said = service.run(*as_user, "show", "--property=Result", "--value", service.unit)
    assert said.stdout.strip() == "success"
