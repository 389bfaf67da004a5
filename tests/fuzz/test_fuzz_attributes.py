"""The database of modes and times: damaged in any way it costs modes and times, nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from stsfs.staging.attributes import AttributeIndex
from tests.fuzz.mutations import bounded, fuzz_slowly

HERE = ("s3://bucket/base", None)


def noted(index):
    index.put(HERE, "base/a", '"e"', mode=0o640, mtime_ns=5)
    return index.of_keys(HERE, "base/a", "base/a")


@fuzz_slowly
@given(st.data())
def test_a_damaged_index_of_attributes_answers_and_is_begun_anew(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("attributes") / "a.sqlite"
    index = AttributeIndex(path)
    assert noted(index)
    index.close()
    text = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(text) - 1), max_size=30)):
        text[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del text[data.draw(st.integers(0, len(text))) :]
    path.write_bytes(text)
    with bounded():
        index = AttributeIndex(path)
        for _ in range(2):
            found = noted(index)
        index.close()
    for each in found.values():
        assert each.mode is None or 0 <= each.mode <= 0o7777
