"""Many runs: what a command line asks for, launched here or on a cluster, searched, planned, and where they stand."""
