"""Strong augmentation of composites: operations on colours, and when which of them happens to what."""
