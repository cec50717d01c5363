"""Reports: what the files of runs and of experiments show. Nothing here trains, and nothing here needs torch."""
