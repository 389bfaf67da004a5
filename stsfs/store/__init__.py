"""The object store: range GETs, LIST pages and changes over sockets in the event loop."""
