"""What stands before an S3 that checks nothing: signatures, session policies, expiry, faults."""
