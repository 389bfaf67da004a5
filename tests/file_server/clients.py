"""Clients of the file server and of moto, and what they see, in a form that can be compared."""

import socket

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError


def s3_client(url, **options):
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="id",
        aws_secret_access_key="secret",
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        **options,
    )


def outcome(call, *args, **kwargs):
    """What a caller sees, without what must differ between two servers."""
    try:
        answer = call(*args, **kwargs)
    except ClientError as exc:
        return exc.response["ResponseMetadata"]["HTTPStatusCode"], exc.response["Error"]["Code"]
    seen = {"status": answer["ResponseMetadata"]["HTTPStatusCode"]}
    for name in ("ContentLength", "ContentRange", "ContentType", "Metadata", "KeyCount",
                 "IsTruncated", "MaxKeys", "Prefix", "Delimiter", "CommonPrefixes",
                 "StartAfter"):  # fmt: skip
        if name in answer:
            seen[name] = answer[name]
    if "Body" in answer:
        seen["body"] = answer["Body"].read()
    if "Contents" in answer:
        seen["Contents"] = [(entry["Key"], entry["Size"]) for entry in answer["Contents"]]
    return seen


def listing(client, **kwargs):
    """All pages: keys, prefixes, and how many entries each page had."""
    keys, prefixes, counts = [], [], []
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="data", **kwargs):
        keys += [entry["Key"] for entry in page.get("Contents", ())]
        prefixes += [entry["Prefix"] for entry in page.get("CommonPrefixes", ())]
        counts.append(page["KeyCount"])
    return keys, prefixes, counts


def byte_order(keys):
    return sorted(keys, key=str.encode)


def put_all(client, keys):
    for key in keys:
        client.put_object(Bucket="data", Key=key, Body=key.encode())


def raw_exchange(server, request):
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(request)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65536), b""))
