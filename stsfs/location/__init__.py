"""What to mount: from what a user types to a bucket, a prefix and a credential source."""
