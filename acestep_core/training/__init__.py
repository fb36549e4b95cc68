"""Training adapters: data sets, tensors, the training loop, and runs that can always be resumed."""
