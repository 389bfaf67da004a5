"""A directory that passes for a mount, and the daemon that answers for it."""

import hashlib
import json
import os
import socketserver
import threading
from dataclasses import dataclass, field

from stsfs.daemon.runtime_dir import KnownMount, MountRecord
from stsfs.errors import StsfsError


def md5(data):
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class _Client(socketserver.StreamRequestHandler):
    def handle(self):
        line = self.rfile.readline()
        if line:
            answer = self.server.daemon_stage.answer(json.loads(line))
            self.wfile.write(json.dumps(answer).encode() + b"\n")


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


@dataclass
class Stage:
    """`facts` holds what the daemon answers of a path, as it is asked."""

    root: os.PathLike
    socket: os.PathLike
    facts: dict = field(default_factory=dict)
    refusals: dict = field(default_factory=dict)
    asked: list = field(default_factory=list)
    before_answer: object = None

    def write(self, name, data=b"data", **changed):
        """A file, and facts about it that are right but for what is changed."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.facts[name] = {
            "path": name,
            "entity_id": f"syn{len(self.facts) + 1}",
            "version": 1,
            "md5": md5(data),
            "size_bytes": len(data),
            "etag": f'"{md5(data)}"',
            "error": None,
        } | changed
        return path

    def answer(self, request):
        if request["command"] == "explain":
            refused = self.refusals.get(request["path"])
            return {"last_refusal": refused, "read": {"errno": None, "sentence": "fine"}}
        paths = request["paths"]
        self.asked.append(paths)
        if self.before_answer is not None:
            try:
                self.before_answer(paths)
            except StsfsError as exc:
                record = {"class": type(exc).__name__, "sentence": exc.sentence, "remedy": ""}
                return {"error": record}
        return {"files": [self.facts[path] for path in paths]}

    def known(self, state="serving"):
        record = MountRecord("syn1", "s3://b", self.root, 1, self.socket, 0.0)
        return KnownMount(record, state)

    def serve(self):
        """Begin to answer; what is returned has `shutdown` and `server_close`."""
        server = _Server(str(self.socket), _Client)
        server.daemon_stage = self
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server
