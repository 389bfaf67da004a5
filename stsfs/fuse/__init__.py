"""The seam with the kernel: requests in, errnos out, and the session on /dev/fuse."""
