"""The domain of card payments and the frauds among them."""
