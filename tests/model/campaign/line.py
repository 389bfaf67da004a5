"""The line of one mount to the store that all share: delays, trouble, and what it was shown."""

import contextvars
from collections import defaultdict

import trio

from stsfs.errors import StoreFailure

ACTOR = contextvars.ContextVar("actor", default=(None, "put"))
"""Who changes the store just now, and how: a mount, or None for another client; the method."""

DELAYS_S = (0.0,) * 12 + (0.02, 0.4, 2.0)


class Objects(dict):
    """The objects of the store; whoever looks after it is told of each change, after it."""

    def __init__(self, told):
        super().__init__()
        self._told = told

    def __setitem__(self, key, stored):
        before = self.get(key)
        super().__setitem__(key, stored)
        self._told(key, before, stored)

    def __delitem__(self, key):
        before = self[key]
        super().__delitem__(key)
        self._told(key, before, None)

    def pop(self, key, *default):
        before = self.get(key)
        found = super().pop(key, *default)
        if before is not None:
            self._told(key, before, None)
        return found


class Line:
    """ObjectStore, and ObjectWriter as `writer`, as one life of one mount has them."""

    def __init__(self, store, mount, trouble, rng, shown):
        self.mount, self.is_cut = mount, False
        self._store, self._trouble, self._rng = store, trouble, rng
        self._shown = shown
        self.writer = LineWriter(self, store)

    @property
    def objects(self):
        """What S3 has."""
        return self._store.objects

    async def call(self, method, request):
        """Make a request as the line is now."""
        for _ in range(self._rng.choice((0, 0, 1, 2))):
            await trio.lowlevel.checkpoint()
        if delay_s := self._rng.choice(DELAYS_S):
            await trio.sleep(delay_s)
        error, happens = self._trouble.fate(self.mount, method)
        if self.is_cut or not happens:
            await trio.lowlevel.checkpoint()
            raise StoreFailure("cut") if self.is_cut else error
        token = ACTOR.set((self.mount, method))
        try:
            result = await request()
        finally:
            ACTOR.reset(token)
        if self.is_cut or error is not None:
            await trio.lowlevel.checkpoint()
            raise StoreFailure("cut") if self.is_cut else error
        return result

    def show(self, key, etag):
        """The mount knows now that S3 has (had) this."""
        if etag is not None:
            self._shown[key].add(etag)

    async def read_range(self, version, start, stop, sink, *, ahead=False):
        await self.call(
            "read_range", lambda: self._store.read_range(version, start, stop, sink, ahead=ahead)
        )
        self.show(version.key, version.etag)

    async def confirm(self, version):
        await self.call("confirm", lambda: self._store.confirm(version))
        self.show(version.key, version.etag)

    async def list_page(self, prefix, **options):
        page = await self.call("list_page", lambda: self._store.list_page(prefix, **options))
        for each in page.objects:
            self.show(each.key, each.etag)
        return page

    def __getattr__(self, name):
        return getattr(self._store, name)


class LineWriter:
    """ObjectWriter of a Line: any method of the store's own."""

    def __init__(self, line, store):
        self._line, self._store = line, store

    def __getattr__(self, method):
        found = getattr(self._store.writer, method)
        if not callable(found):
            return found

        async def request(*args, **options):
            result = await self._line.call(method, lambda: found(*args, **options))
            if method in ("put", "complete_upload", "written"):
                self._line.show(args[0], result)
            elif method == "copy":
                self._line.show(args[1], result)
            elif method == "traits":
                self._line.show(args[0].key, args[0].etag)
            return result

        setattr(self, method, request)
        return request


def nothing_shown():
    """ETags by key, for one mount."""
    return defaultdict(set)
