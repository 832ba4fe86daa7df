"""What the asset graph talks to. Each can be swapped for a double of the same methods."""
