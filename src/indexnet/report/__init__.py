"""Reports: read records, say what they show. Nothing here trains, and nothing but files of runs is read."""
