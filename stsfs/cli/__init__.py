"""The commands a person types: arguments in, exit codes and tables out; no decisions."""
