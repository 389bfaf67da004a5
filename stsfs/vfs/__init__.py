"""The file system without FUSE: names, versions, open handles, reads."""
