"""What is being written, on the local disk, until S3 has it: bytes, records, moves, attributes.

`directory` is where a daemon begins: it makes a `file.StagingFile` for each file that is written,
whose `record.Record` says what has to be known to publish it; `left` finds what daemons that died
had not published. `spans` are sets of byte ranges, `moves` the journal of renames, `attributes`
the modes and times that an object store has no room for.
"""
