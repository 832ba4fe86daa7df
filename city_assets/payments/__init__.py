"""Card payments and the frauds among them."""
