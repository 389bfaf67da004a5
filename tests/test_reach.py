"""Which addresses a stranger's URL may lead to."""

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stsfs.errors import AccessDenied
from stsfs.store.reach import Reach, is_public
from stsfs.synapse.endpoints import PRODUCTION, Endpoints

PUBLIC = ["52.217.0.1", "1.1.1.1", "2600:1f18::1", "64:ff9b::34d9:1"]
NOT_PUBLIC = [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "100.127.255.255", "224.0.0.1", "239.1.1.1", "255.255.255.255",
    "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "240.0.0.1",
    "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:52.217.0.1", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::1", "2001::1", "2001:db8::1", "fe80::1",
    "fe80::1%2", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "100::1", "", "localhost",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_asked_with_tls_alone(address):
    assert is_public(address)
    for reach in (Reach(), Reach(loopback=True)):
        reach.check(address, tls=True)
        with pytest.raises(AccessDenied):
            reach.check(address, tls=False)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_no_other_address_may_be_asked(address):
    assert not is_public(address)
    for tls in (False, True):
        with pytest.raises(AccessDenied):
            Reach().check(address, tls=tls)
        if address not in {"127.0.0.1", "127.9.9.9", "::1"}:
            with pytest.raises(AccessDenied):
                Reach(loopback=True).check(address, tls=tls)


@given(st.ip_addresses().map(str) | st.text(max_size=20))
@example("::ffff:0:0")
@example("64:ff9b::ffff:ffff")
def test_what_is_public_is_none_of_the_kinds_of_addresses_that_are_not(address):
    if not is_public(address):
        return
    found = ipaddress.ip_address(address)
    if found.version == 6 and found in ipaddress.ip_network("64:ff9b::/96"):
        found = ipaddress.ip_address(int(found) & 0xFFFFFFFF)
    kinds = ("private", "loopback", "link_local", "multicast", "unspecified", "reserved")
    assert [kind for kind in kinds if getattr(found, f"is_{kind}")] == []


@pytest.mark.parametrize(
    ("endpoints", "are_loopback"),
    [
        (PRODUCTION, False),
        (Endpoints.single("http://127.0.0.1:8080"), True),
        (Endpoints.single("https://localhost"), True),
        (Endpoints.single("http://[::1]:1"), True),
        (Endpoints.single("https://localhost.example"), False),
        (Endpoints.single("https://127.0.0.1.nip.io"), False),
        (Endpoints.single("https://127.0.0.1@evil.example"), False),
        (Endpoints.single("https://10.0.0.1"), False),
        (Endpoints("http://127.0.0.1/r", "http://127.0.0.1/a", "https://file.example/f"), False),
    ],
)
def test_only_a_synapse_that_is_named_by_a_loopback_address_is_on_this_machine(
    endpoints, are_loopback
):
    assert endpoints.are_loopback is are_loopback
