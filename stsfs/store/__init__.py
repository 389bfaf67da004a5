"""The object store: range GETs and LIST pages over sockets in the event loop."""
