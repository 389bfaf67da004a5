"""From a staging file to an object: uploads, moves of objects, recovery."""
