"""How the stages run on a Ray cluster: one thin file for each, and run.py for all of them."""
