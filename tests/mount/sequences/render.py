"""A recording as a person reads it: runs of reads and writes are one line each."""

import os
import re
from itertools import pairwise

FLAGS = ("O_CREAT", "O_EXCL", "O_TRUNC", "O_APPEND", "O_DIRECT", "O_SYNC", "O_DSYNC", "O_NOFOLLOW")
ACCESS = {os.O_RDONLY: "O_RDONLY", os.O_WRONLY: "O_WRONLY", os.O_RDWR: "O_RDWR"}

RANDOM_NAMES = (
    (re.compile(r"(^|/)(\.[\w.-]+)\.\w{6}$"), r"\1\2.XXXXXX"),  # rsync
    (re.compile(r"(^|/)(sed|zi|tmp_\w+_)\w{6}$"), r"\1\2XXXXXX"),  # sed, zip, git
    (re.compile(r"(^|/)(tmp)\w{8}$"), r"\1\2XXXXXXXX"),  # Python's tempfile
    (re.compile(r"(^|/)XX\w{6}$"), r"\1XXXXXXXX"),  # perl
    (re.compile(r"(^|/)t[a-zA-Z0-9]{6}$"), r"\1tXXXXXX"),  # git's trial of symbolic links
    (re.compile(r"\.tmp\.\d+\."), ".tmp.PID."),  # samtools
    (re.compile(r"\b[0-9a-f]{40}\b"), "SHA1"),
    (re.compile(r"\bobjects/[0-9a-f]{2}\b"), "objects/XX"),
    (re.compile(r"\b[0-9a-f]{38}\b"), "SHA1"),
)
"""Names that a tool draws by chance, so that two recordings are alike."""

RANDOM_ORDER_MIN = 4


def flag_words(flags):
    """Names of the flags that matter here; O_SYNC contains O_DSYNC."""
    words = [ACCESS[flags & os.O_ACCMODE]]
    for word in FLAGS:
        bits = getattr(os, word)
        if flags & bits == bits and not (word == "O_DSYNC" and "O_SYNC" in words):
            words.append(word)
    return "|".join(words)


def fixed(name):
    """A name without what was drawn by chance."""
    for pattern, instead in RANDOM_NAMES:
        name = pattern.sub(instead, name)
    return name


def lines_of(requests):
    """The lines of a recording, in the order of the requests."""
    lines, run = [], []
    for request in requests:
        if request["op"] == "":  # what became of the request before
            lines += _run_lines(run)
            run = []
            lines[-1] += f"   = {request['error']}"
            continue
        if run and (request["op"], request.get("handle")) != (run[0]["op"], run[0]["handle"]):
            lines += _run_lines(run)
            run = []
        if request["op"] in ("read", "write"):
            run.append(request)
        else:
            lines.append(_line(request))
    return _repeats_folded(lines + _run_lines(run))


def _run_lines(run):
    """Requests of one kind on one handle: contiguous ones as one span; many spans as one line."""
    if not run:
        return []
    operation, handle = run[0]["op"], run[0]["handle"]
    if operation == "read":  # the kernel's read-ahead decides in which pieces
        stop = max(each["stop"] for each in run)
        return [f"{'read':9}{handle}  {min(each['start'] for each in run)}..{stop}"]
    spans = []
    for each in run:
        if spans and spans[-1][1] == each["start"]:
            spans[-1][1] = each["stop"]
            spans[-1][2].append(each["stop"] - each["start"])
        else:
            spans.append([each["start"], each["stop"], [each["stop"] - each["start"]]])
    if len(spans) > RANDOM_ORDER_MIN:
        start, stop = min(span[0] for span in spans), max(span[1] for span in spans)
        back = sum(after[0] < before[1] for before, after in pairwise(spans))
        total = sum(sum(span[2]) for span in spans)
        return [
            f"{operation:9}{handle}  {len(run)} requests, {total} bytes within {start}..{stop},"
            f" {back} times back"
        ]
    return [
        f"{operation:9}{handle}  {start}..{stop}{_sizes(sizes)}" for start, stop, sizes in spans
    ]


def _sizes(sizes):
    return f"   ({len(sizes)} requests of up to {max(sizes)})" if len(sizes) > 1 else ""


def _line(request):
    operation, name = request["op"], fixed(request.get("node", ""))
    match operation:
        case "create":
            rest = f"{request['handle']} = {name}  {flag_words(request['flags'])} {request['mode']}"
        case "open":
            size = f"size {request['size']}"
            rest = f"{request['handle']} = {name}  {flag_words(request['flags'])}  {size}"
        case "flush":
            rest = request["handle"] + ("" if request["writes"] else "   (only read)")
        case "fsync" | "fsyncdir":
            rest = (request.get("handle") or name) + ("  data" if request["datasync"] else "")
        case "release":
            rest = request["handle"]
        case "setattr":
            by_handle = f"  ({request['handle']})" if request["handle"] else ""
            given = [
                f"{word}={request[word]}"
                for word in ("size", "mode", "uid", "gid")
                if word in request
            ]
            rest = f"{name}  {' '.join(given + request['times'])}{by_handle}"
        case "rename":
            rest = f"{name} -> {fixed(request['target'])}{_rename_facts(request)}"
        case "unlink":
            rest = name + _open(request["open"])
        case "link":
            rest = f"{name} -> {fixed(request['target'])}"
        case "symlink":
            rest = f"{name} -> {request['target']}"
        case "setxattr" | "removexattr":
            rest = f"{name}  {request['name']}   = ENOTSUP"
        case _:
            rest = f"{name} {request['mode']}" if "mode" in request else name
    return f"{operation:9}{rest}"


def _open(handles, what=""):
    return f"   ({what}open as {', '.join(handles)})" if handles else ""


def _rename_facts(request):
    words = "".join(f"  {word}" for word in request["flags"])
    over = "   (over an existing one)" if request["over"] else ""
    return words + over + _open(request["open"]) + _open(request["target_open"], "target ")


def _lines(length):
    return "this line" if length == 1 else f"these {length} lines"


def _repeats_folded(lines):
    """The same block of lines again and again, but for the numbers of handles, is written once."""
    keys = [re.sub(r"\bh\d+\b", "h", line) for line in lines]
    folded, at = [], 0
    while at < len(lines):
        for length in range(1, 13):
            block, count = keys[at : at + length], 1
            while keys[at + count * length : at + (count + 1) * length] == block:
                count += 1
            if count > 2 and len(block) == length:
                folded += [
                    *lines[at : at + length],
                    f"         ... {_lines(length)} {count} times",
                ]
                at += count * length
                break
        else:
            folded.append(lines[at])
            at += 1
    return folded
