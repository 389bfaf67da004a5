"""What ObjectWriter promises, kept over a server that is nobody's imitation.

With a session as Synapse gives it, whose role demands no ACL: radosgw 16 knows that condition for
PutObject only (see test_policy).
"""

import pytest

from stsfs.demo.gate.sessions import Session
from tests.conformance.houses import S3House
from tests.conformance.test_object_writer import *  # noqa: F403 - the same tests, another house
from tests.strict.radosgw import ADMIN
from tests.strict.vendor import as_policy, client, session_policy

pytestmark = pytest.mark.strict

BASE_KEY, ROLE = "writes", "free-of-acls"


def writing_session(url):
    """Keys of a role that may do anything, cut by Synapse's policy for one base key."""
    anything = {"Effect": "Allow", "Action": ["s3:*"], "Resource": "arn:aws:s3:::*"}
    trust = {
        "Effect": "Allow",
        "Principal": {"AWS": ["arn:aws:iam:::user/admin"]},
        "Action": ["sts:AssumeRole"],
    }
    iam, sts = client("iam", url), client("sts", url)
    iam.create_role(RoleName=ROLE, Path="/", AssumeRolePolicyDocument=as_policy(trust))
    iam.put_role_policy(RoleName=ROLE, PolicyName="all", PolicyDocument=as_policy(anything))
    made = sts.assume_role(
        RoleArn=f"arn:aws:iam:::role/{ROLE}",
        RoleSessionName="writes",
        DurationSeconds=900,
        Policy=session_policy("lab", BASE_KEY, "read_write"),
    )["Credentials"]
    iam.close()
    sts.close()
    return Session(made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"])


class RadosgwHouse(S3House):
    knows_uploads = copies_parts = has_classes = False


@pytest.fixture(scope="module")
def made_house(radosgw):
    made = RadosgwHouse(
        radosgw.url,
        keys=Session(*ADMIN),
        session=writing_session(radosgw.url),
        base=f"{BASE_KEY}/",
        acl="bucket-owner-full-control",
        conditions=False,
    )
    yield made
    made.close()


@pytest.fixture
def house(made_house):
    yield made_house
    made_house.leave()
