"""What the fake Synapse itself asks of S3: Synapse reads buckets with a role of its own."""

import threading
from typing import Any, Protocol

import boto3
from botocore.client import Config
from botocore.exceptions import ClientError

PRESIGNED_LIFETIME_S = 900
OWNER_TXT_BYTES_MAX = 64 * 1024


class Storage(Protocol):
    """S3 as Synapse's own role sees it. Called from several threads; may block."""

    def presigned_get(self, bucket: str, key: str, file_name: str) -> str:
        """Return a URL for one object; clients look for X-Amz-Date and X-Amz-Expires in it."""

    def bucket_exists(self, bucket: str) -> bool:
        """Say whether the bucket is there and readable."""

    def read(self, bucket: str, key: str) -> bytes | None:
        """Return a small object, or None where there is none."""

    def size_bytes(self, bucket: str, key: str) -> int | None:
        """Return the size of an object, or None where there is none."""


class Boto3Storage:
    """The same through boto3, at any S3 server.

    Presigned URLs name that server, so it must be where the downloading client can reach it.
    """

    def __init__(
        self,
        endpoint_url: str,
        *,
        access_key_id: str = "synapse",
        secret_access_key: str = "synapse",  # noqa: S107 - servers that verify get another
        region: str = "us-east-1",
    ) -> None:
        # Without s3v4 boto3 presigns in the old form, which has no X-Amz-Date.
        config = Config(signature_version="s3v4", s3={"addressing_style": "path"})
        self._options: dict[str, Any] = {
            "endpoint_url": endpoint_url,
            "region_name": region,
            "aws_access_key_id": access_key_id,
            "aws_secret_access_key": secret_access_key,
            "config": config,
        }
        self._lock = threading.Lock()
        self._client: Any = None

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._client is not None:
                self._client.close()

    @property
    def _s3(self) -> Any:
        """The client, made when it is first needed: that takes a third of a second."""
        with self._lock:
            if self._client is None:
                self._client = boto3.client("s3", **self._options)
            return self._client

    def presigned_get(self, bucket: str, key: str, file_name: str) -> str:
        """Sign a GET that downloads under the file handle's name."""
        quoted = file_name.replace("\\", "").replace('"', "")
        url: str = self._s3.generate_presigned_url(
            "get_object",
            Params={
                "Bucket": bucket,
                "Key": key,
                "ResponseContentDisposition": f'attachment; filename="{quoted}"',
            },
            ExpiresIn=PRESIGNED_LIFETIME_S,
        )
        return url

    def bucket_exists(self, bucket: str) -> bool:
        """Say whether HeadBucket succeeds."""
        return self._answer(self._s3.head_bucket, Bucket=bucket) is not None

    def read(self, bucket: str, key: str) -> bytes | None:
        """Return the first bytes of an object, as many as an owner.txt may have."""
        answer = self._answer(self._s3.get_object, Bucket=bucket, Key=key)
        if answer is None:
            return None
        with answer["Body"] as body:
            data: bytes = body.read(OWNER_TXT_BYTES_MAX)
        return data

    def size_bytes(self, bucket: str, key: str) -> int | None:
        """Return ContentLength of HEAD."""
        answer = self._answer(self._s3.head_object, Bucket=bucket, Key=key)
        return None if answer is None else int(answer["ContentLength"])

    def _answer(self, call: Any, **arguments: str) -> Any:
        try:
            return call(**arguments)
        except ClientError:
            return None
