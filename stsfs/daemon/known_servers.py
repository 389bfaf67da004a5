"""What probes have found out about S3 servers, kept on disk so that not each mount asks again.

One small file per location. Whatever is wrong with it, the location is asked again.
"""

import hashlib
import json
import logging
import time

from stsfs.daemon import runtime_dir
from stsfs.errors import ForeignPath
from stsfs.owned_dir import OwnedDir
from stsfs.store.capabilities import Condition, ServerCapabilities, Verdict

log = logging.getLogger(__name__)

KEPT_S = 7 * 86400.0
FILE_BYTES_MAX = 64 * 1024
_FORMAT = 1


def recall(capabilities: ServerCapabilities, uri: str, endpoint_url: str | None) -> bool:
    """Take over what was found out within the last KEPT_S; whether there was anything. Blocks."""
    try:
        with OwnedDir.open(runtime_dir.known_servers(), follow=True) as directory:
            kept = json.loads(directory.read(_name(uri, endpoint_url), FILE_BYTES_MAX))
        age_s = time.time() - float(kept["found_at_unix_s"])
        is_of_it = (kept["format"], kept["uri"], kept["endpoint_url"]) == (
            _FORMAT, uri, endpoint_url
        )  # fmt: skip
        verdicts = {each: Verdict(kept["conditions"][each]) for each in Condition}
    except (OSError, ForeignPath, ValueError, KeyError, TypeError, RecursionError):
        return False
    if not is_of_it or not 0 <= age_s < KEPT_S:
        return False
    for condition, verdict in verdicts.items():
        capabilities.found(condition, verdict)
    capabilities.found_by = "memory"
    return True


def remember(capabilities: ServerCapabilities, uri: str, endpoint_url: str | None) -> None:
    """Keep what a probe has found out. Blocks; a disk that fails is logged only."""
    values = {
        "format": _FORMAT,
        "uri": uri,
        "endpoint_url": endpoint_url,
        "found_at_unix_s": time.time(),
        "conditions": capabilities.verdicts,
    }
    text = json.dumps(values).encode("ascii")
    try:
        with OwnedDir.open(runtime_dir.known_servers(), create=True, follow=True) as directory:
            directory.replace(_name(uri, endpoint_url), text)
    except (OSError, ForeignPath) as exc:
        log.info("what was found out about %s is not kept: %s", uri, exc)


def _name(uri: str, endpoint_url: str | None) -> str:
    named = json.dumps([uri, endpoint_url]).encode()
    return f"{hashlib.sha256(named).hexdigest()[:32]}.json"
