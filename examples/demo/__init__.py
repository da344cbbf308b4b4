"""What `make demo` shows: a ranking service, its users, and what is counted of them."""
