"""What only a listing can tell: whether a key that may not be asked for is there."""

from collections.abc import Awaitable, Callable

from stsfs.errors import AccessDenied, StsfsError
from stsfs.store.object_store import ListedObject

Look = Callable[[str], Awaitable[ListedObject | None]]
"""What a listing shows of a key, None if nothing."""


async def is_gone(look: Look, key: str, etag: str, denied: AccessDenied) -> bool:
    """Whether a 403 means that there is no such version of a key, and is not a refusal.

    A session that may list below its prefix only, as every Synapse session, gets 403 for a key
    that does not exist.
    """
    if type(denied) is not AccessDenied:
        return False
    try:
        found = await look(key)
    except StsfsError:
        return False
    return found is None or found.etag != etag
