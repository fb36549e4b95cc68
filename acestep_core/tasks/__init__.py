"""One file a task: how a request becomes conditioning."""
