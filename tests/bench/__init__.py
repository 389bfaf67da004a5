"""How fast stsfs is beside its peers: one server, one run, interleaved. `python -m tests.bench`."""
