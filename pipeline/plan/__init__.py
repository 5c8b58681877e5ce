"""What a run will need, before it begins: memory, hours. Arithmetic alone: no network, no GPU."""
