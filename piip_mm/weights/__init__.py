"""Weight files: where they come from, their names and sizes, what became of them."""
