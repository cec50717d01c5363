"""One run, from a command line to its record: configuration, experiment files, folder, training, test, loggers."""
