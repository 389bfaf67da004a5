"""The real command around a file system that holds nothing: `python stub_stsfs.py mount ...`.

The location says what becomes of the mount: `stub:ok`, `stub:refused`, `stub:bug`, `stub:killed`;
`stub:entities` tells of a view, `stub:silent` ends the connection of whoever asks.
"""

import os
import signal
import sys
import time
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def serve_mount(config, point, manager, ready):
    from stsfs.errors import TokenRejected

    if config.location == "stub:refused":
        raise TokenRejected("Synapse rejects the token.", remedy="Make a new one.")
    if config.location == "stub:bug":
        raise KeyError("surprise")
    if config.location == "stub:killed":
        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    import trio

    return trio.run(_serve, config, ready)


async def _serve(config, ready):
    import errno
    import stat

    import pyfuse3
    import trio

    from stsfs.daemon import runtime_dir
    from stsfs.daemon.control import serve_control
    from stsfs.daemon.runtime_dir import MountRecord

    class OneFile(pyfuse3.Operations):
        def __init__(self):
            super().__init__()

        async def getattr(self, inode, ctx=None):
            attributes = pyfuse3.EntryAttributes()
            attributes.st_ino = inode
            is_root = inode == pyfuse3.ROOT_INODE
            attributes.st_mode = stat.S_IFDIR | 0o755 if is_root else stat.S_IFREG | 0o644
            return attributes

        async def lookup(self, parent_inode, name, ctx=None):
            if name != b"file":
                raise pyfuse3.FUSEError(errno.ENOENT)
            return await self.getattr(pyfuse3.ROOT_INODE + 1)

        async def open(self, inode, flags, ctx):
            return pyfuse3.FileInfo(fh=inode)

    async def status(request):
        if config.location == "stub:silent":
            raise KeyError("no answer")
        place = {"label": config.location, "path": "/", "view": "entities", "view_reason": "so"}
        return {
            "locations": [place] if config.location == "stub:entities" else [],
            "location": config.location,
            "mount_path": str(config.mount_path),
            "pid": os.getpid(),
        }

    async def unmount(request):
        pyfuse3.terminate()
        return {}

    socket_path = runtime_dir.control_socket(config.mount_path)
    record = MountRecord(
        location=config.location,
        uri="s3://stub",
        mount_path=config.mount_path,
        pid=os.getpid(),
        control_socket=socket_path,
        started_at_unix_s=time.time(),
        log_file=config.log_file,
    )
    async with trio.open_nursery() as nursery:
        pyfuse3.init(OneFile(), str(config.mount_path), {"fsname=stub", "subtype=stsfs", "ro"})
        try:
            await nursery.start(serve_control, socket_path, {"status": status, "unmount": unmount})
            runtime_dir.write_record(record)
            ready()
            await pyfuse3.main()
        finally:
            pyfuse3.close(unmount=True)
        runtime_dir.remove_record(record)
        nursery.cancel_scope.cancel()
    return 0


if __name__ == "__main__":
    stub = types.ModuleType("stsfs.daemon.serve")
    stub.serve_mount = serve_mount
    sys.modules["stsfs.daemon.serve"] = stub

    from stsfs.cli.main import main

    main(prog_name="stsfs")
