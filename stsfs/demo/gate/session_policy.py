"""What a Synapse session may do: its session policy, cut by the role's own policy. Pure.

Sources: Synapse-Repository-Services `sts-policy-template.json.vtp` and StsManagerImpl (session
policy), Synapse-Stack-Builder `main-repo-shared-resources-template.json.vpt` (role policy:
PutObject only with the bucket owner's full control).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stsfs.demo.gate.sessions import Session
from stsfs.demo.s3_wire import Headers, Refusal, parse_params, plus_unquote

REQUIRED_ACL = "bucket-owner-full-control"

_READ = frozenset({"GetObject"})
_WRITE = frozenset(
    {"PutObject", "CreateMultipartUpload", "CopyObject", "UploadPart", "UploadPartCopy",
     "CompleteMultipartUpload", "AbortMultipartUpload", "ListParts", "DeleteObject",
     "DeleteObjects", "PutObjectAcl"}
)  # fmt: skip
_NEEDS_ACL = frozenset({"PutObject", "CreateMultipartUpload", "CopyObject", "PutObjectAcl"})
_LISTS = frozenset({"ListObjects", "ListObjectsV2"})

# Parameters that turn a request into another operation than the plain one.
_BUCKET_FEATURES = (
    "location", "versions", "versioning", "uploads", "acl", "tagging", "policy", "cors",
    "lifecycle", "encryption", "notification", "replication", "object-lock", "ownershipControls",
)  # fmt: skip
_FEATURE_NAMES = {
    "location": "GetBucketLocation",
    "versions": "ListObjectVersions",
    "uploads": "ListMultipartUploads",
}
_OBJECT_FEATURES = ("tagging", "attributes", "torrent", "legal-hold", "retention", "restore")


@dataclass(frozen=True, slots=True)
class Action:
    """A request in S3's words, with what the policy looks at."""

    name: str
    """The API operation: GetObject, ListObjectsV2, UploadPartCopy, …"""

    bucket: str = ""
    key: str = ""
    prefix: str | None = None
    """What a listing asks for; None where the request has no prefix."""

    acl: str = ""
    """The canned ACL, or empty."""

    source: tuple[str, str] | None = None
    """Bucket and key that a copy reads."""


def classify(method: str, path: str, query: str, headers: Headers) -> Action:
    """Name the operation behind a path-style request; path and query as they were sent."""
    bucket, _, key = (plus_unquote(part) for part in path.removeprefix("/").partition("/"))
    params = parse_params(query)
    values = dict(reversed(headers))
    name = _object_action(method, params, values) if key else _bucket_action(method, params)
    if not bucket:
        name = "ListBuckets"
    source_header = values.get("x-amz-copy-source", "").partition("?")[0]
    source: tuple[str, str] | None = None
    if source_header:
        from_bucket, _, from_key = plus_unquote(source_header).removeprefix("/").partition("/")
        source = (from_bucket, from_key)
    return Action(name, bucket, key, params.get("prefix"), values.get("x-amz-acl", ""), source)


def decide(action: Action, session: Session) -> Refusal | None:
    """Return None where both policies allow the action, else the refusal S3 would give.

    DeleteObjects is judged key by key: see decide_deletes().
    """
    if session.permission is None:
        return None
    denied = Refusal(403, "AccessDenied", "Access Denied")
    if session.bucket and action.bucket != session.bucket:
        return denied
    allowed = _READ if session.permission == "read_only" else _READ | _WRITE
    if action.name in _LISTS or action.name == "HeadBucket":
        return None if _may_list(action.prefix, session.base_key) else denied
    if action.name == "ListMultipartUploads":
        # With a base key the action is granted on a key's ARN, where it never applies.
        whole_bucket = not session.base_key and session.permission == "read_write"
        return None if whole_bucket else denied
    if action.name not in allowed or action.name in session.withheld:
        return denied
    if action.name != "DeleteObjects" and not _within(action.key, session.base_key):
        return denied
    if action.source is not None and not _may_read(action.source, session):
        return denied
    if action.name in _NEEDS_ACL and action.acl != REQUIRED_ACL:
        return denied
    if action.name in ("UploadPart", "UploadPartCopy") and action.acl:
        return denied
    return None


def decide_deletes(keys: Iterable[str], session: Session) -> list[str]:
    """Return those keys of a DeleteObjects request that the session may not delete."""
    if session.permission is None:
        return []
    return [key for key in keys if not _within(key, session.base_key)]


def hides_missing_keys(session: Session) -> bool:
    """Whether GET and HEAD of a missing key answer 403.

    S3 says 404 only to who may list; the grant to list is bound to a prefix, which GET lacks.
    """
    return session.permission is not None and bool(session.base_key)


def _may_list(prefix: str | None, base_key: str) -> bool:
    if not base_key:
        return True
    return prefix is not None and (prefix == base_key or prefix.startswith(f"{base_key}/"))


def _may_read(source: tuple[str, str], session: Session) -> bool:
    bucket, key = source
    return bucket == session.bucket and _within(key, session.base_key)


def _within(key: str, base_key: str) -> bool:
    if not base_key:
        return key != "owner.txt"
    return key == base_key or (key.startswith(f"{base_key}/") and key != f"{base_key}/owner.txt")


def _bucket_action(method: str, params: Mapping[str, str]) -> str:
    feature = next((name for name in _BUCKET_FEATURES if name in params), None)
    match method:
        case "GET" if feature:
            return _FEATURE_NAMES.get(feature, f"GetBucket:{feature}")
        case "GET":
            return "ListObjectsV2" if params.get("list-type") == "2" else "ListObjects"
        case "HEAD":
            return "HeadBucket"
        case "POST" if "delete" in params:
            return "DeleteObjects"
    verb = {"PUT": "Put", "DELETE": "Delete"}.get(method, method)
    return f"{verb}Bucket:{feature}" if feature else f"{verb}Bucket"


def _object_action(method: str, params: Mapping[str, str], headers: Mapping[str, str]) -> str:
    feature = next((name for name in _OBJECT_FEATURES if name in params), None)
    if feature:
        return f"{method.capitalize()}Object:{feature}"
    if "versionId" in params:
        return f"{method.capitalize()}ObjectVersion"
    match method:
        case "GET" | "HEAD" if "acl" in params:
            return "GetObjectAcl"
        case "GET" if "uploadId" in params:
            return "ListParts"
        case "GET" | "HEAD":
            return "GetObject"
        case "DELETE":
            return "AbortMultipartUpload" if "uploadId" in params else "DeleteObject"
        case "PUT":
            return _put_action(params, headers)
        case "POST" if "uploads" in params:
            return _tagged("CreateMultipartUpload", headers)
        case "POST" if "uploadId" in params:
            return "CompleteMultipartUpload"
    return f"{method.capitalize()}Object"


def _put_action(params: Mapping[str, str], headers: Mapping[str, str]) -> str:
    copies = "x-amz-copy-source" in headers
    if "acl" in params:
        return "PutObjectAcl"
    if "uploadId" in params:
        return "UploadPartCopy" if copies else "UploadPart"
    return _tagged("CopyObject" if copies else "PutObject", headers)


def _tagged(name: str, headers: Mapping[str, str]) -> str:
    """Creating an object with tags needs PutObjectTagging beside the grant to create."""
    return f"{name}:tagged" if "x-amz-tagging" in headers else name
