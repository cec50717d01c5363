"""What every room may use: errors, files, locks, paths, names, conventions, this machine, the console, statistics."""
