"""Fuzzing by coverage of one boundary: `python -m tests.fuzz.atheris_run page 600 [CORPUS]`.

Needs `pip install atheris`, which the suite does not. What fails is written to the directory of the
corpus, and ends the run; so does an input that takes 30 s, or 2 GiB.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["stsfs", "email", "httptools"]):
    import trio

    from stsfs.errors import StsfsError
    from stsfs.store import answers
    from stsfs.store.http_connection import Head
    from stsfs.store.list_page import ListPageParser
    from stsfs.store.paging import check_page
    from tests.fuzz import test_fuzz_store as cases

PIECE_BYTES = 700


ROW = (
    b"<Contents><Key>%s</Key><ETag>%s</ETag><Size>%s</Size><LastModified>%s</LastModified>"
    b"<StorageClass>%s</StorageClass></Contents>"
)


def page(data):
    """A page of a listing: its bytes, and what must hold of what is made of them.

    Bytes that begin with a line break are the texts of rows, a line each.
    """
    if data[:1] == b"\n":
        texts = data[1:].replace(b"<", b"&lt;").split(b"\n")
        rows = [ROW % tuple(texts[at : at + 5]) for at in range(0, len(texts) - 4, 5)]
        data = b"<ListBucketResult><EncodingType>url</EncodingType>%s</ListBucketResult>"
        data %= b"".join(rows)

    async def run():
        parser = ListPageParser()
        for at in range(0, len(data), PIECE_BYTES):
            parser.feed(data[at : at + PIECE_BYTES])
        found = await parser.page()
        check_page(found, "a/", token=None, keys_max=1000, delimiter="/")
        return found

    try:
        found = trio.run(run)
    except StsfsError:
        return
    cases.check_page(found)


def error(data):
    """The body of an error answer, and of an answer that tells of an error inside."""
    date, _, body = data.partition(b"\n")
    if body[:1] == b"\n":  # texts of the elements, a line each
        code, region, text, *_ = [*body[1:].replace(b"<", b"&lt;").split(b"\n"), b"", b"", b""]
        body = b"<Error><Code>%s</Code><Region>%s</Region>" % (code, region)
        body += b"<Message>%s</Message><Header>%s</Header></Error>" % (text, text)
    headers = {b"date": date, b"x-amz-bucket-region": date}
    with cases.refused_in_words():
        cases.check_answer(answers.read(Head(403, headers), body))
        answers.read_inside(Head(200, headers), body)


def head(data):
    """A whole answer, from its first byte."""
    cases.asked(data)


SEEDS = {
    page: [
        cases.LIST,
        cases.LIST.replace(b">url<", b">none<"),
        b'\na/b\n"e"\n5\n2020-01-01T00:00:00.000Z\nSTANDARD\na/%C3%A9\ne\n1\n2020-01-01\n',
    ],
    error: [
        b"Sat, 28 Nov 2026 11:00:00 GMT\n" + cases.ERROR,
        b"Sat, 28 Nov 2026 11:00:00 GMT\n\nRequestTimeTooSkewed\neu-west-1\nno\n",
    ],
    head: [cases.HEAD, cases.HEAD.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked")],
}
WORDS = [
    "<Contents>", "</Contents>", "<Key>", "</Key>", "<Size>", "</Size>", "<ETag>", "&quot;",
    "<CommonPrefixes><Prefix>", "</Prefix></CommonPrefixes>", "<IsTruncated>true</IsTruncated>",
    "<EncodingType>url</EncodingType>", "%ff", "%00", "%2F", "-23:59", "+23:59", "9999-12-31",
    "0001-01-01T00:00:00Z", "<!DOCTYPE a [<!ENTITY a 'b'>]>", "&a;", "<![CDATA[", "<!--", "<?x?>",
    "<Error><Code>", "</Code>", "<Region>", "</Region>", "<Message>", "&#0;", "&#10;", " GMT",
]  # fmt: skip
"""What mutations are made of, beside single bytes."""


def main(name, seconds, corpus):
    """Run one target for so long."""
    target = next(each for each in SEEDS if each.__name__ == name)
    for number, seed in enumerate(SEEDS[target]):
        (corpus / f"seed{number}").write_bytes(seed)
    words = corpus.with_suffix(".words")
    words.write_text("".join(f'"{word}"\n' for word in WORDS))
    options = [f"-max_total_time={seconds}", "-timeout=30", "-rss_limit_mb=2048", "-max_len=20000"]
    options += [f"-dict={words}", f"-artifact_prefix={corpus}/failed-"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], target)
    atheris.Fuzz()


if __name__ == "__main__":
    folder = Path(sys.argv[3] if len(sys.argv) > 3 else tempfile.mkdtemp(prefix="stsfs-fuzz-"))
    main(sys.argv[1], sys.argv[2], folder)
