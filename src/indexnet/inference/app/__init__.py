"""The page on a person's own machine."""

ADDRESS = "127.0.0.1"  # never another: the page has no password
