"""What the services need from outside. Each Protocol's docstrings state order, atomicity, durability and errors."""
