"""`stsfs rules`, what mounts and explain tell of the rules, and the table in the README."""

import functools
import json
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from click.testing import CliRunner

from stsfs import errors
from stsfs.cache.block_cache import BlockCache
from stsfs.cache.block_pool import BlockPool
from stsfs.cli import rules as command
from stsfs.cli import rules_view
from stsfs.cli.main import main
from stsfs.daemon.questions import Questions
from stsfs.location.location import Location
from stsfs.location.look import look
from stsfs.location.parse import parse_target
from stsfs.location.resolve import ResolveOptions, SynapseAccess
from stsfs.location.rules_place import place_record, rules_place, way_place
from stsfs.rules.table import ROWS
from stsfs.synapse.answers import error_from
from stsfs.synapse.client import SynapseClient
from stsfs.vfs.inspector import Inspector
from stsfs.vfs.nodes import Directory, Site, new_number
from stsfs.vfs.refusals import Refusals
from stsfs.vfs.static_view import StaticView
from stsfs.vfs.tree import Tree
from stsfs.vfs.vfs import Vfs
from tests.fakes import MemoryStore
from tests.schemas import checked

README = (Path(__file__).parent.parent / "README.md").read_text()
STS = Location("syn1", "lab", "base", synapse_id="syn1", reserved_names=frozenset({b"owner.txt"}))


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments):
        done = CliRunner().invoke(main, ["rules", *arguments])
        assert done.exit_code == 0, done.output
        return done.output

    return invoke


def names(rules):
    return [rule["name"] for rule in rules]


# the command


def test_without_a_location_every_rule_is_printed(run):
    told = run()
    for rule in ROWS:
        assert rule.says.replace("`", "")[:40] in told
    answer = checked("rules", run("--json"))
    assert answer["place"] is None
    assert names(answer["rules"]) == [rule.name for rule in ROWS]


ERRNOS = {
    errors.ReadOnlyPlace: "EROFS",
    errors.ForbiddenByRule: "EPERM",
    errors.OtherLocation: "EXDEV",
    errors.NotSupported: "ENOTSUP",
    errors.InvalidRequest: "EINVAL",
    errors.NameTooLong: "ENAMETOOLONG",
    errors.KeyTooLong: "ENAMETOOLONG",
}


def test_rules_of_mounting_have_exit_codes_and_the_others_errnos():
    for rule in ROWS:
        told = rules_view.record(rule)
        if rule.operations <= {"mount", "mount_rw"}:
            assert told["errno"] is None
            assert rules_view.answer(rule) == f"exit code {told['exit_code']}"
        else:
            assert told["errno"] == rules_view.answer(rule) == ERRNOS[rule.error]


def test_a_place_in_s3_has_no_rules_of_synapse_and_nobody_is_asked(run):
    answer = checked("rules", run("s3://lab/raw", "--json"))
    assert answer["place"]["storage"] == "s3"
    assert answer["place"]["writable"] is None
    told = names(answer["rules"])
    assert "other-location" in told
    assert not {"reserved-name", "whole-bucket", "sts-in-sts", "managed", "read-only"} & set(told)
    assert "base key  raw" in run("s3://lab/raw")


def test_a_path_in_a_mount_is_asked_of_its_daemon(run, monkeypatch):
    record = place_record(rules_place(STS, writable=True))
    monkeypatch.setattr(command, "locate", lambda path: ("where", path))
    monkeypatch.setattr(
        command, "ask_about", lambda place, what: {(("where", "d"), "rules"): record}[place, what]
    )
    answer = checked("rules", run("d", "--json"))
    assert answer["place"]["reserved_names"] == ["owner.txt"]
    assert names(answer["rules"]) == record["rules"]
    assert "owner.txt, in its root" in run("d")


# what Synapse tells


async def looked_at(monkeypatch, *, options=None, **destination):
    monkeypatch.setenv("SYNAPSE_AUTH_TOKEN", "pat")
    kind = destination.pop("kind", "ExternalS3UploadDestination")
    body = {
        "concreteType": f"org.sagebionetworks.repo.model.file.{kind}",
        "storageLocationId": 7,
        **destination,
    }
    answer = httpx.MockTransport(lambda request: httpx.Response(200, json=body))
    options = options or ResolveOptions()
    access = SynapseAccess(options, functools.partial(SynapseClient, transport=answer))
    try:
        return await look(parse_target("syn7"), options=options, synapse=access)
    finally:
        await access.aclose()


async def test_a_folder_on_a_bucket_of_ones_own_can_be_written(monkeypatch):
    place = await looked_at(monkeypatch, stsEnabled=True, bucket="lab", baseKey="base")
    assert (place.storage, place.bucket, place.prefix) == ("external", "lab", "base/")
    assert "reserved-name" in place_record(place)["rules"]
    assert "whole-bucket" not in place_record(place)["rules"]


async def test_storage_of_synapse_is_known_to_be_read_only(monkeypatch):
    place = await looked_at(monkeypatch, kind="S3UploadDestination", stsEnabled=True, baseKey="7/x")
    assert place_record(place)["rules"] == ["managed-mount", "managed"]


async def test_a_whole_bucket_is_told_unless_it_is_accepted(monkeypatch):
    place = await looked_at(monkeypatch, stsEnabled=True, bucket="lab")
    assert "whole-bucket" in place_record(place)["rules"]
    accepted = ResolveOptions(whole_bucket=True)
    place = await looked_at(monkeypatch, options=accepted, stsEnabled=True, bucket="lab")
    assert "whole-bucket" not in place_record(place)["rules"]


async def test_a_folder_without_sts_has_no_rules_of_its_own(monkeypatch):
    with pytest.raises(errors.NotStsLocation, match="syn7"):
        await looked_at(monkeypatch, bucket="lab")


def test_what_synapse_refuses_for_managed_storage_is_told_as_the_table_has_it():
    reason = "STS write access is not allowed in Synapse storage"
    error = error_from(400, {}, {"reason": reason}, entity_id="syn1")
    row = next(rule for rule in ROWS if rule.name == "managed-mount")
    assert (type(error), error.remedy) == (row.error, row.remedy)
    assert error.sentence == row.sentence.format(at="syn1")


# what a mount tells


@pytest.fixture
async def questions(nursery):
    """A mount of two locations below one directory, the first of which is Synapse's."""
    store = MemoryStore()
    store.put("base/file", b"0123456789")
    static = StaticView(Site(0, store, ""))
    lease = SimpleNamespace(
        current=lambda: None,
        status=lambda: SimpleNamespace(in_force=True, last_error=""),
    )
    places = {}
    for location_id, location in ((1, STS), (2, Location("s3://lab/raw", "lab", "raw"))):
        site = Site(location_id, store, location.prefix, location.reserved_names)
        name = f"location{location_id}".encode()
        static.add(Directory(new_number(), site, location.prefix, static.root, name))
        places[location_id] = SimpleNamespace(
            location=location, lease=lease, rules_place=rules_place(location, writable=True)
        )
    tree = Tree(static.root, metadata_ttl_s=3600)
    cache = BlockCache(BlockPool(budget_bytes=1 << 20, block_bytes=1 << 16), store)
    await nursery.start(cache.run)
    inspector = Inspector(tree, cache, Vfs(tree, cache))
    return Questions(places, inspector, Refusals(), None)


@pytest.mark.parametrize(
    ("path", "allowed", "errno_name"),
    [
        ("", False, "EROFS"),
        ("new", False, "EROFS"),
        ("location1", True, None),
        ("location1/file", True, None),
        ("location1/new", True, None),
        ("location1/owner.txt", False, "EPERM"),
        ("location1/file/below", False, "ENOTDIR"),
        ("location2/owner.txt", True, None),
    ],
)
async def test_explain_tells_the_errno_that_a_change_would_meet(
    questions, path, allowed, errno_name
):
    change = (await questions.explain({"path": path}))["change"]
    assert (change["allowed"], change["errno"]) == (allowed, errno_name)


@pytest.mark.parametrize(
    ("path", "storage"), [("", "none"), ("location1/file", "external"), ("location2", "s3")]
)
async def test_a_mount_tells_the_rules_of_the_place_that_a_path_lies_in(questions, path, storage):
    answer = await questions.handlers()["rules"]({"path": path})
    assert answer["storage"] == storage
    assert json.loads(json.dumps(answer)) == answer
    assert ("reserved-name" in answer["rules"]) == (storage == "external")


@pytest.mark.parametrize(
    ("facts", "storage"),
    [
        ({"writable": True}, "external"),
        ({}, "synapse"),
        ({"managed": True}, "managed"),
        ({"managed": False}, "external"),
    ],
)
def test_who_keeps_the_bytes_is_told_as_far_as_it_is_known(facts, storage):
    assert rules_place(STS, **facts).storage == storage
    assert rules_place(Location("s3://lab", "lab", ""), **facts).storage == "s3"


def test_directories_that_lead_to_locations_are_no_location():
    assert not way_place("this mount").is_sts


# the README


def test_the_table_of_the_readme_is_that_of_the_program(run):
    told = README.split("<!-- rules -->\n")[1].split("<!-- /rules -->")[0]
    assert told == run("--markdown")
