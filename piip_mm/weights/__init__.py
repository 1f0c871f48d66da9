"""Weight files: where they come from, names and sizes of tensors, load reports."""
