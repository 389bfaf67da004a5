"""An S3 over a directory, for large objects and for speed."""
