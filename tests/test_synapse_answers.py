"""Every refusal of Synapse becomes an error of its own, with what the user can do about it."""

import pytest

from stsfs import errors
from stsfs.synapse import answers

SCOPE = "insufficient_scope. Request lacks scope(s) required by this service: download, modify"

REFUSALS = [
    (401, "Invalid access token", errors.TokenRejected, "personal access token"),
    (400, "Entity must have an STS-enabled storage location", errors.NotStsLocation, "sts_enabled"),
    (
        400,
        "STS write access is not allowed in Synapse storage",
        errors.ManagedStorageReadOnly,
        "without --rw",
    ),
    (403, SCOPE, errors.ScopeMissing, "view, modify and download"),
    (403, "Terms of use have not been signed.", errors.TermsOfUseUnsigned, "accept"),
    (
        403,
        "There are unmet access requirements that must be met to read content in the requested "
        "container.",
        errors.AccessRequirementUnmet,
        "https://www.synapse.org/Synapse:syn123",
    ),
    (
        403,
        "You need to enable two factor authentication to access the requested entity.",
        errors.TwoFactorRequired,
        "account settings",
    ),
    (
        403,
        "You lack DOWNLOAD access to the requested entity.",
        errors.PermissionMissing,
        "administrator of the project",
    ),
    (
        403,
        "Anonymous users have only READ access permission.",
        errors.AnonymousRefused,
        "token",
    ),
    (
        403,
        "Only certified users may create or update content in Synapse.",
        errors.CertificationRequired,
        "quiz",
    ),
    (404, "Resource: 'syn123' does not exist", errors.EntityNotFound, "Check the id"),
    (404, "Entity syn123 is in trash can.", errors.EntityInTrash, "restore"),
]


@pytest.mark.parametrize(
    ("status", "reason", "kind", "remedy"),
    REFUSALS,
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_refusal_has_its_class_sentence_and_remedy(status, reason, kind, remedy):
    error = answers.error_from(status, {}, {"reason": reason}, entity_id="syn123")
    assert type(error) is kind
    assert remedy in error.remedy
    assert "\n" not in str(error)
    if kind is not errors.TokenRejected:
        assert "syn123" in error.sentence


@pytest.mark.parametrize("permission", ["DOWNLOAD", "UPDATE", "CREATE", "DELETE"])
def test_the_missing_permission_is_named(permission):
    reason = f"You lack {permission} access to the requested entity."
    error = answers.error_from(403, {}, {"reason": reason}, entity_id="syn123")
    assert permission in error.sentence


def test_the_missing_scopes_are_named():
    error = answers.error_from(403, {}, {"reason": SCOPE}, entity_id="syn123")
    assert "download, modify" in error.sentence


@pytest.mark.parametrize(
    ("description", "word"),
    [("The token has expired.", "expired"), ("The access token has been revoked.", "revoked")],
)
def test_an_ended_oauth_token_is_told_from_an_invalid_one(description, word):
    body = {"error": "invalid_token", "reason": f"invalid_token. {description}"}
    error = answers.error_from(401, {}, body)
    assert type(error) is errors.TokenRejected
    assert word in error.sentence
    assert "invalid," not in error.sentence


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_unavailable(status):
    error = answers.error_from(status, {}, {"reason": "wait"}, entity_id="syn123")
    assert type(error) is errors.SynapseUnavailable
    assert "wait" in error.sentence


def test_throttling_maintenance_and_aws_failure_read_differently():
    sentences = {
        answers.error_from(status, {}, {"reason": "x"}).sentence for status in (429, 500, 502, 503)
    }
    assert len(sentences) == 4


def test_an_unknown_call_blames_the_endpoint_not_the_entity():
    reason = "GET was not found. Please reference API documentation at https://x/"
    error = answers.error_from(404, {}, {"reason": reason}, entity_id="syn123")
    assert type(error) is errors.SynapseRefusal
    assert "--synapse-endpoint" in error.remedy


def test_a_redirection_names_where_it_leads():
    error = answers.error_from(301, {"location": "https://new.example"}, None)
    assert type(error) is errors.SynapseRefusal
    assert "https://new.example" in error.sentence


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (403, errors.PermissionMissing),
        (404, errors.EntityNotFound),
        (400, errors.SynapseRefusal),
        (418, errors.SynapseRefusal),
    ],
)
@pytest.mark.parametrize("body", [None, "", "<html>\nno\n</html>" * 100, [], {"reason": None}, {}])
def test_unknown_words_still_make_one_short_line(status, kind, body):
    error = answers.error_from(status, {}, body, entity_id="syn123")
    assert type(error) is kind
    assert "\n" not in str(error)
    assert len(error.sentence) < 500


def test_a_known_reason_counts_only_with_its_status():
    reason = "Entity must have an STS-enabled storage location"
    error = answers.error_from(403, {}, {"reason": reason}, entity_id="syn123")
    assert type(error) is errors.PermissionMissing
