"""State dicts that other projects released: recognised, renamed, and given a network. One file per source."""
