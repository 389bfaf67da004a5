"""Synapse's way of handing out credentials, with radosgw as the service that assumes the role."""

import json
import threading
from datetime import UTC

import boto3
from botocore.config import Config

from tests.mount.stage import PATIENCE_S
from tests.strict.radosgw import ADMIN

ROLE = "synapse"
_READ = ["s3:GetObject", "s3:ListBucket"]
_WRITE = [
    "s3:GetObject", "s3:PutObject", "s3:PutObjectAcl", "s3:DeleteObject",
    "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts", "s3:ListBucket",
    "s3:ListBucketMultipartUploads",
]  # fmt: skip


def client(service, url, key=ADMIN, token=None):
    """A boto3 client that says what goes wrong at once."""
    return boto3.client(
        service,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=key[0],
        aws_secret_access_key=key[1],
        aws_session_token=token,
        config=Config(
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            parameter_validation=False,  # sessions of less than 900 s
        ),
    )


def as_policy(*statements):
    """A policy document without spaces: radosgw 16 does not decode `+` in form bodies."""
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))


def session_policy(bucket, base_key, permission):
    """What Synapse's server sends along with AssumeRole, for a location with a base key."""
    of_bucket, of_keys = f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/{base_key}"
    allow = {"Effect": "Allow"}
    return as_policy(
        allow | {"Action": "s3:ListBucket", "Resource": of_bucket,
                 "Condition": {"StringEquals": {"s3:prefix": base_key}}},
        allow | {"Action": "s3:ListBucket", "Resource": of_bucket,
                 "Condition": {"StringLike": {"s3:prefix": f"{base_key}/*"}}},
        allow | {"Action": _READ if permission == "read_only" else _WRITE,
                 "Resource": [of_keys, f"{of_keys}/*"]},
        {"Effect": "Deny", "Action": "*", "Resource": f"{of_keys}/owner.txt"},
    )  # fmt: skip


def role_policy(*, demands_acl):
    """What the role itself may do, whatever the session policy adds."""
    allow = {"Effect": "Allow", "Resource": "arn:aws:s3:::*"}
    if not demands_acl:
        return as_policy(allow | {"Action": _WRITE})
    acl = {"StringEquals": {"s3:x-amz-acl": "bucket-owner-full-control"}}
    puts = ["s3:PutObject", "s3:PutObjectAcl"]
    others = [action for action in _WRITE if action not in puts]
    return as_policy(allow | {"Action": others}, allow | {"Action": puts, "Condition": acl})


class AssumeRoleVendor:
    """The fake Synapse's Vendor, over one role, with the policies that Synapse uses.

    `lifetime_s`, whole seconds, counts for the sessions vended from then on. A role that demands
    the ACL cannot begin multipart uploads here, nor copy: radosgw 16 knows s3:x-amz-acl for
    PutObject only.
    """

    def __init__(self, url, lifetime_s=3600, *, role=ROLE, demands_acl=True):
        self.url, self.lifetime_s, self.vended = url, lifetime_s, 0
        self._role = role
        self._changed = threading.Condition()
        iam = client("iam", url)
        trust = {
            "Effect": "Allow",
            "Principal": {"AWS": ["arn:aws:iam:::user/admin"]},
            "Action": ["sts:AssumeRole"],
        }
        iam.create_role(RoleName=role, Path="/", AssumeRolePolicyDocument=as_policy(trust))
        policy = role_policy(demands_acl=demands_acl)
        iam.put_role_policy(RoleName=role, PolicyName="synapse", PolicyDocument=policy)
        iam.close()

    def wait_for(self, count):
        """Return when so many sets have been vended in all."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.vended >= count, PATIENCE_S)

    def vend(self, bucket, base_key, permission, session_name):
        sts = client("sts", self.url)
        made = sts.assume_role(
            RoleArn=f"arn:aws:iam:::role/{self._role}",
            RoleSessionName=session_name,
            DurationSeconds=int(self.lifetime_s),
            Policy=session_policy(bucket, base_key, permission),
        )["Credentials"]
        sts.close()
        with self._changed:
            self.vended += 1
            self._changed.notify_all()
        end = made["Expiration"].astimezone(UTC)
        return {
            "accessKeyId": made["AccessKeyId"],
            "secretAccessKey": made["SecretAccessKey"],
            "sessionToken": made["SessionToken"],
            "expiration": f"{end:%Y-%m-%dT%H:%M:%S}.{end.microsecond // 1000:03d}Z",
        }
