"""A real mount on a real S3: sessions of seconds, under the policies that Synapse attaches."""

import hashlib
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.mount.stage import PATIENCE_S
from tests.strict.conftest import (
    BASE_KEY,
    BIG_BYTES,
    BUCKET,
    CONTROL_NAMES,
    MIB,
    ODD_NAMES,
    SECONDS,
)
from tests.strict.radosgw import ADMIN

pytestmark = pytest.mark.strict

ROOT = Path(__file__).parents[2]
RENEWALS = 4
LONG_S = 900

PROCESS = """
import json, sys
sys.path.insert(0, {root!r})
from tests.strict.vendor import client, session_policy, ROLE
made = client("sts", {url!r}).assume_role(
    RoleArn=f"arn:aws:iam:::role/{{ROLE}}", RoleSessionName="process",
    DurationSeconds=int(open({lifetime!r}).read()),
    Policy=session_policy({bucket!r}, {base_key!r}, "read_only"))["Credentials"]
print(json.dumps({{"Version": 1, "AccessKeyId": made["AccessKeyId"],
    "SecretAccessKey": made["SecretAccessKey"], "SessionToken": made["SessionToken"],
    "Expiration": made["Expiration"].isoformat()}}))
"""


def digest(path, wait_between):
    """SHA-256 of a file, read in pieces between which wait_between() waits for a new session."""
    found, piece_bytes = hashlib.sha256(), BIG_BYTES // (RENEWALS + 1)
    with open(path, "rb", buffering=0) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        while file.tell() < size_bytes:
            if file.tell():
                wait_between()
            stop = min(file.tell() + piece_bytes, size_bytes)
            while file.tell() < stop:
                found.update(file.read(min(MIB, stop - file.tell())))
    return found.hexdigest()


def bad(radosgw, before):
    """What radosgw has not done as it was asked to, since so many requests."""
    return [access for access in radosgw.accesses()[before:] if access.status >= 400]


def test_a_file_is_read_right_across_several_sessions(mount, syn_id, vendor, radosgw, data):
    vendor.lifetime_s, before = SECONDS, len(radosgw.accesses())
    live = mount(syn_id, "--memory", "32MiB")
    expected = hashlib.sha256(data["big.bin"]).hexdigest()
    assert digest(live / "big.bin", lambda: vendor.wait_for(vendor.vended + 1)) == expected
    assert live.status()["credentials"]["failures"] == 0
    assert bad(radosgw, before) == []
    assert len(radosgw.accesses()) > before


def test_tools_see_what_was_written_and_nothing_else(mount, syn_id, vendor, radosgw, tmp_path):
    vendor.lifetime_s, before = LONG_S, len(radosgw.accesses())
    live = mount(syn_id)
    assert sorted(os.listdir(live.path)) == ["big.bin", "control", "hello.txt", "many", "odd"]
    found = subprocess.run(
        ["find", live.path, "-type", "f", "-print0"], capture_output=True, check=True
    )
    assert found.stdout.count(b"\0") == 1100 + len(ODD_NAMES) + len(CONTROL_NAMES) + 2
    for folder, names in (("odd", ODD_NAMES), ("control", CONTROL_NAMES)):
        subprocess.run(["cp", "-a", live / folder, tmp_path / folder], check=True)
        assert sorted(os.listdir(tmp_path / folder)) == sorted(names)
        for name in names:
            copied = tmp_path / folder / name
            assert copied.read_bytes() == name.encode()
            assert stat.S_ISREG(copied.stat().st_mode)
    assert live.status()["hidden"]["count"] == 1  # odd//x
    assert bad(radosgw, before) == []


def test_the_proof_of_ownership_does_not_exist_and_is_not_asked_for(
    mount, syn_id, vendor, radosgw, s3
):
    vendor.lifetime_s = LONG_S
    assert s3.head_object(Bucket=BUCKET, Key=f"{BASE_KEY}/owner.txt")["ContentLength"]
    before = len(radosgw.accesses())
    live = mount(syn_id)
    assert "owner.txt" not in os.listdir(live.path)
    with pytest.raises(FileNotFoundError):
        (live / "owner.txt").read_bytes()
    assert [each for each in radosgw.accesses()[before:] if "owner.txt" in each.target] == []


def test_a_location_is_mounted_with_credentials_of_a_process(
    mount, vendor, radosgw, data, s3, tmp_path
):
    before = len(radosgw.accesses())
    lifetime, script = tmp_path / "seconds", tmp_path / "credentials.py"
    lifetime.write_text(str(SECONDS))
    script.write_text(
        PROCESS.format(
            root=str(ROOT),
            url=radosgw.url,
            lifetime=str(lifetime),
            bucket=BUCKET,
            base_key=BASE_KEY,
        )
    )
    config = tmp_path / "aws-config"
    config.write_text(
        f"[profile lab]\nregion = us-east-1\ncredential_process = {sys.executable} {script}\n"
    )
    environment = {
        "AWS_CONFIG_FILE": str(config),
        "AWS_ACCESS_KEY_ID": ADMIN[0],
        "AWS_SECRET_ACCESS_KEY": ADMIN[1],
    }
    live = mount(
        f"s3://{BUCKET}/{BASE_KEY}", "--profile", "lab", "--memory", "32MiB", env=environment
    )

    def credentials():
        return live.status()["credentials"]

    def wait_until(is_so):
        limit_s = time.monotonic() + PATIENCE_S
        while not is_so(credentials()):  # a renewal is announced to nobody
            assert time.monotonic() < limit_s, "the session is not renewed"

    def wait_for_renewal():
        seen = credentials()["renewals"]
        wait_until(lambda now: now["renewals"] > seen)

    expected = hashlib.sha256(data["big.bin"]).hexdigest()
    assert digest(live / "big.bin", wait_for_renewal) == expected
    assert credentials()["failures"] == 0
    lifetime.write_text(str(LONG_S))  # the audit must not find a process that is running
    wait_until(lambda now: now["seconds_left"] > 2 * SECONDS)
    assert json.dumps(live.status()).count(ADMIN[1]) == 0
    assert bad(radosgw, before) == []
