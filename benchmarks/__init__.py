"""What the claims of cost in the README rest on. See `__main__`."""
