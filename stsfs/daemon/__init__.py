"""One mount as a process: builds the parts, owns their lifetimes, answers on its control socket."""
