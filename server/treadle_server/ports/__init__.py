"""What the house asks of the world outside: contracts without logic."""
