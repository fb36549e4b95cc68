"""The networks: ``nn.Module`` classes whose parameter names are the published checkpoints' names."""
