"""The data of the demo: a small genome study, made from a seed."""
