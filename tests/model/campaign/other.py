"""Another client of the store, which has no mount."""

import trio

from tests.model.campaign.cells import encode


class Other:
    """Another client, which needs no mount."""

    def __init__(self, store, books):
        self.store, self.books = store, books

    async def do(self, step):
        if step.op == "sleep":
            await trio.sleep(*step.args)
            return
        await trio.lowlevel.checkpoint()
        getattr(self, step.op)(*step.args)

    def put(self, path, count):
        books = self.books
        op, ending = books.begin(None, "put", path), books.ending(None, path)
        made = books.write(None, 0, count)
        made.promised, made.is_done = made.start, True
        data = encode(made.number, 0, count)
        self.store.put(path, data)
        made.end = ending.end = ending.late = books.tick()
        books.succeed(op, {path: data})

    def delete(self, path):
        books = self.books
        op, ending = books.begin(None, "delete", path), books.ending(None, path)
        self.store.delete(path)
        ending.end = ending.late = books.tick()
        books.succeed(op, {path: None})
