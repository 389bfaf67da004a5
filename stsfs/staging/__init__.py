"""What is being written, on the local disk, until S3 has it."""
