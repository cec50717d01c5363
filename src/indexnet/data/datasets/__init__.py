"""One module per data set; a new file here and one in ``conf/data`` is a new data set."""
