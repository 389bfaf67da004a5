"""Where on the network a URL may lead that somebody else wrote.

Whoever can make this machine ask an address inside its network, its own services or those of its
cloud (169.254.169.254), reads what only it may read. So only public addresses are connected to, and
only with TLS. What is judged is the address itself, after the name was looked up, and just that
address is connected to: a name that leads elsewhere a moment later gains nothing.
"""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from stsfs.errors import AccessDenied

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_6TO4 = IPv6Network("2002::/16")
_NAT64 = IPv6Network("64:ff9b::/96")

_WHY = "stsfs follows signed URLs to public addresses only, and only with https."


class Reach:
    """Which addresses may be connected to: public ones with TLS, and perhaps this machine's own.

    loopback is for a Synapse that runs on this machine, as in the demo and in tests; it allows
    loopback addresses, with and without TLS, and no other.
    """

    def __init__(self, *, loopback: bool = False) -> None:
        self._loopback = loopback

    def check_scheme(self, *, tls: bool) -> None:
        """Raise AccessDenied for a URL that no address could make right."""
        if not tls and not self._loopback:
            raise AccessDenied("The URL that Synapse gave is not one of https.", remedy=_WHY)

    def check(self, address: str, *, tls: bool) -> None:
        """Raise AccessDenied for an address, as `getaddrinfo` gives it, that must not be asked."""
        if self._loopback and _is_loopback(address):
            return
        if not tls or not is_public(address):
            raise AccessDenied(
                f"The URL that Synapse gave leads to {address}, which is not a public address.",
                remedy=_WHY,
            )


def is_public(address: str) -> bool:
    """Whether an address is one of the whole internet, and of a single host there."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv4Address):
        return found.is_global and not found.is_multicast
    if found in _NAT64:  # what it is translated to
        return is_public(str(IPv4Address(int(found) & 0xFFFFFFFF)))
    return _is_public_v6(found)


def _is_public_v6(address: IPv6Address) -> bool:
    return address.is_global and address in _GLOBAL_UNICAST and address not in _6TO4


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
