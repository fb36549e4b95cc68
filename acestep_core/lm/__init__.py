"""The planner: the 5 Hz language model that writes songs, plans and semantic codes."""
