"""Histories that once showed a bug of the product, in the shortest form."""

FOUND = {
    "made by an open that only reads, it comes to S3 at its close": [
        ["open", 0, "a", "RDONLY|CREAT", 0o644],
        ["close", 0],
    ],
    "an open that only reads, and cuts the file off": [
        ["open", 0, "a", "WRONLY|CREAT", 0o644],
        ["pwrite", 0, 0, 100, 1],
        ["close", 0],
        ["open", 0, "a", "RDONLY|TRUNC", 0o644],
        ["read", 0, 1],
        ["close", 0],
    ],
    "truncated by name while somebody reads, it comes to S3": [
        ["open", 0, "a", "WRONLY|CREAT", 0o644],
        ["close", 0],
        ["open", 0, "a", "RDONLY", 0o644],
        ["truncate", "a", 5000],
        ["settle"],
    ],
}
