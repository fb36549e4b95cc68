"""What fits on which card: tiers, estimates, and smaller plans where something does not fit."""
